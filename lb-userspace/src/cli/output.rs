//! Printing: nothing that came from a probe or the network reaches the terminal raw, and a closed pipe is no fault.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;

/// Prints to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a value as JSON: indented for people, on one line for programs.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = match io::stdout().is_terminal() {
        true => serde_json::to_string_pretty(value)?,
        false => serde_json::to_string(value)?,
    };
    Ok(print(&(escape_json(&text) + "\n"))?)
}

/// Prints an error with its causes to standard error.
pub fn print_error(error: &anyhow::Error) {
    let mut text = clean_lines(&error.to_string());
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many messages end with their cause already.
        if !said.contains(&cause) {
            text.push_str(": ");
            text.push_str(&clean_lines(&cause));
            said = cause;
        }
    }
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The text with everything escaped that could move a cursor, colour a screen or turn the direction of writing.
pub fn clean(text: &str) -> String {
    escape(text, |_| false, |character, out| out.extend(character.escape_unicode()))
}

/// As [`clean`], and keeps line ends.
pub fn clean_lines(text: &str) -> String {
    let keep = |character| character == '\n';
    escape(text, keep, |character, out| out.extend(character.escape_unicode()))
}

/// Each item, cleaned, on a line of its own (an item may have several).
pub fn lines(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&clean_lines(item.as_ref()));
        text.push('\n');
    }
    text
}

/// One value as JSON on one line.
pub fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(&json_line(value)?)?)
}

/// A value as one line of JSON, with its end.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(escape_json(&serde_json::to_string(value)?) + "\n")
}

/// JSON leaves characters raw that terminals obey. They occur only in strings, where `\u` may stand for them.
fn escape_json(json: &str) -> String {
    let keep = |character| character == '\n';
    escape(json, keep, |character, out| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn escape(
    text: &str,
    keep: impl Fn(char) -> bool,
    mut put: impl FnMut(char, &mut String),
) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hostile(character) && !keep(character) {
            put(character, &mut cleaned);
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// Control characters, line separators, and those that turn or hide text.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Whether standard output takes colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// It does.
    pub colour: bool,
}

impl Style {
    /// Without any.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };

    /// As standard output and `NO_COLOR` say.
    pub fn of_stdout() -> Self {
        Self { colour: io::stdout().is_terminal() && wants_colour() }
    }

    /// A word that says how something is: red, yellow or green.
    pub fn state(self, word: &str) -> String {
        let word = clean(word);
        if !self.colour {
            return word;
        }
        let code = match colour_of(&word) {
            Some(Color::Red) => 31,
            Some(Color::Yellow) => 33,
            Some(Color::Green) => 32,
            _ => return word,
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    /// A cell with such a word.
    pub fn state_cell(self, word: &str) -> Cell {
        let cell = Cell::new(clean(word));
        match colour_of(word) {
            Some(colour) if self.colour => cell.fg(colour),
            _ => cell,
        }
    }

    /// A table without lines: columns are told apart by space, as in ipvsadm.
    pub fn table(self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let heading = |text: &&str| match self.colour {
            true => Cell::new(text).add_attribute(Attribute::Bold),
            false => Cell::new(text),
        };
        table.set_header(headings.iter().map(heading));
        table
    }
}

/// Whether the user has not said no: <https://no-color.org>.
pub fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A cell whose text stands at the right.
pub fn number_cell(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The table's text, each line indented, with a line end.
pub fn table_text(table: &Table, indent: &str) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(format!("{indent}{}", line.trim_start_matches(' ')).trim_end());
        text.push('\n');
    }
    text
}

fn colour_of(word: &str) -> Option<Color> {
    Some(match tone_of(word)? {
        Tone::Good => Color::Green,
        Tone::Changing => Color::Yellow,
        Tone::Bad => Color::Red,
    })
}

/// What a word means to who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On the way, or so by intention.
    Changing,
    /// Not as it should be.
    Bad,
}

/// The tone of a state's word.
pub fn tone_of(word: &str) -> Option<Tone> {
    Some(match word {
        "UP" | "NOLB" | "native" | "up" | "running" | "in step" | "this node" | "ok" => Tone::Good,
        "DOWN" | "FAIL-OPEN" | "PANIC" | "SORRY" | "detached" | "unresolved" | "down" | "error" => {
            Tone::Bad
        }
        "ready" => return None,
        "drain" | "maint" | "removed" | "generic" | "warning" | "BACKUP" | "UNDER-QUORUM" => {
            Tone::Changing
        }
        // `UP 1/3`, `DOWN 1/2`: on the way.
        _ if word.starts_with("EJECTED ") => Tone::Bad,
        _ if word.starts_with("UP ") || word.starts_with("DOWN ") => Tone::Changing,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(clean("ok \x1b[31mred\x07\u{9b}0m"), "ok \\u{1b}[31mred\\u{7}\\u{9b}0m");
        assert_eq!(clean("a\nb\u{202e}c"), "a\\u{a}b\\u{202e}c");
        assert_eq!(clean_lines("a\nb\r"), "a\nb\\u{d}");
        assert_eq!(clean("größe – 中"), "größe – 中");
    }

    #[test]
    fn json_stays_json_when_it_is_cleaned() {
        let text = escape_json(&serde_json::to_string("a\u{9b}\x1b\u{7f}\u{202e}\n").unwrap());
        assert!(!text.chars().any(is_hostile), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a\u{9b}\x1b\u{7f}\u{202e}\n");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let colour = Style { colour: true };
        assert_eq!(Style::PLAIN.state("DOWN"), "DOWN");
        assert_eq!(colour.state("DOWN"), "\x1b[31mDOWN\x1b[0m");
        assert_eq!(colour.state("UP 1/3"), "\x1b[33mUP 1/3\x1b[0m");
        let mut table = Style::PLAIN.table(&["A"]);
        table.add_row([Style::PLAIN.state_cell("UP")]);
        assert_eq!(table_text(&table, "  "), "  A\n  UP\n");
        let mut table = colour.table(&["A"]);
        table.add_row([colour.state_cell("UP")]);
        assert!(table.to_string().contains("\x1b["), "{table}");
    }
}
