//! What is wrong in a file: place, what is wrong, what would be right.

use std::fmt;

use super::{
    document::{Document, Position, lines},
    model::Source,
};

/// Most diagnostics collected from one file; a file with more is not one that somebody corrects line by line.
pub const MAX_DIAGNOSTICS: usize = 200;

/// One thing that is wrong (or, as a warning, doubtful) in a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Line, from 1; 0 = the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 = the file as a whole.
    pub column: u32,
    /// Where in the structure, such as `services[0].listen.port`; empty = the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// About a place of the text.
    pub(super) fn at(
        position: Position,
        path: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let help = help.into();
        Self {
            line: position.line,
            column: position.column,
            path: path.into(),
            message: message.into(),
            help: (!help.is_empty()).then_some(help),
        }
    }

    /// About the file as a whole.
    pub fn of_file(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::at(Position::default(), "", message, help)
    }
}

impl fmt::Display for Diagnostic {
    /// `message: help`, without the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.help {
            Some(help) => write!(f, "{}: {help}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Everything found wrong in one file, sorted by position. Displayed like a compiler's errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// The file.
    pub source: Source,
    /// At least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl Errors {
    /// Sorts by position, and drops what is said twice.
    pub fn new(source: Source, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        diagnostics.dedup();
        Self { source, diagnostics }
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = lines(&self.source.text);
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", describe(&self.source, &lines, diagnostic))?;
        }
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            write!(f, "\nthere may be more: only the first {MAX_DIAGNOSTICS} are shown")?;
        }
        Ok(())
    }
}

/// One diagnostic with its line and a caret; for warnings, which stand beside a good configuration.
pub fn render(source: &Source, diagnostic: &Diagnostic) -> String {
    let lines: Vec<&str> = lines(&source.text);
    describe(source, &lines, diagnostic)
}

/// `lb.yaml:12:5: unknown key ...` and, below it, the line with a caret.
fn describe(source: &Source, lines: &[&str], diagnostic: &Diagnostic) -> String {
    let file = source.path.display();
    if diagnostic.line == 0 {
        return format!("{file}: {diagnostic}");
    }
    let head = format!("{file}:{}:{}: {diagnostic}", diagnostic.line, diagnostic.column);
    match lines.get(diagnostic.line as usize - 1) {
        Some(line) => format!("{head}\n{}", excerpt(line, diagnostic)),
        None => head,
    }
}

/// Longest part of a line that is shown, characters.
const EXCERPT_CHARACTERS: usize = 120;

fn excerpt(line: &str, diagnostic: &Diagnostic) -> String {
    let column = diagnostic.column.max(1) as usize - 1;
    // A window on long lines; control characters (terminal escapes among them) become blanks, one for one.
    let first = match column < EXCERPT_CHARACTERS - 20 {
        true => 0,
        false => column - EXCERPT_CHARACTERS / 2,
    };
    let shown: String = line
        .chars()
        .skip(first)
        .take(EXCERPT_CHARACTERS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let offset = column - first;
    let length = shown
        .chars()
        .skip(offset)
        .take_while(|c| !c.is_whitespace() && !matches!(c, ',' | '}' | ']'))
        .collect::<String>()
        .trim_end_matches(':')
        .chars()
        .count()
        .max(1);
    let number = format!("{:>6}", diagnostic.line);
    let (margin, blank) = (" ".repeat(number.len()), " ".repeat(offset));
    format!("{number} | {}\n{margin} | {blank}{}", shown.trim_end(), "^".repeat(length))
}

/// Findings of the rules, which know paths but no positions.
pub(super) struct Findings<'a> {
    document: &'a Document,
    /// What was found wrong.
    pub errors: Vec<Diagnostic>,
    /// What was found doubtful.
    pub warnings: Vec<Diagnostic>,
}

impl<'a> Findings<'a> {
    /// None yet.
    pub fn new(document: &'a Document) -> Self {
        Self { document, errors: Vec::new(), warnings: Vec::new() }
    }

    /// None yet, about the same document.
    pub fn none(&self) -> Self {
        Self::new(self.document)
    }

    /// With those of others behind them.
    pub fn take(&mut self, others: Self) {
        let free = |known: &Vec<Diagnostic>| MAX_DIAGNOSTICS.saturating_sub(known.len());
        let (errors, warnings) = (free(&self.errors), free(&self.warnings));
        self.errors.extend(others.errors.into_iter().take(errors));
        self.warnings.extend(others.warnings.into_iter().take(warnings));
    }

    /// Something that makes the file invalid, at `path` or the nearest thing around it that is written.
    pub fn error(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.errors.len() < MAX_DIAGNOSTICS {
            self.errors.push(Diagnostic::at(self.document.locate(path), path, message, help));
        }
    }

    /// Something doubtful.
    pub fn warning(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.warnings.len() < MAX_DIAGNOSTICS {
            self.warnings.push(Diagnostic::at(self.document.locate(path), path, message, help));
        }
    }

    /// `line 3, column 7` of a path, for messages that name two places.
    pub fn place(&self, path: &str) -> String {
        let Position { line, column } = self.document.locate(path);
        format!("line {line}, column {column}")
    }

    /// Whether the file says anything at exactly this path.
    pub fn is_written(&self, path: &str) -> bool {
        self.document.is_written(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: u32, column: u32) -> String {
        let source = Source { path: "x".into(), text: text.into() };
        render(&source, &Diagnostic::at(Position { line, column }, "", "wrong", ""))
    }

    #[test]
    fn carets_stand_below_what_they_mean() {
        for (text, line, column, expected) in [
            ("a: {b: c}", 1, 5, "x:1:5: wrong\n     1 | a: {b: c}\n       |     ^"),
            ("é: über, z", 1, 4, "x:1:4: wrong\n     1 | é: über, z\n       |    ^^^^"),
            ("a: \u{1b}[31mred", 1, 1, "x:1:1: wrong\n     1 | a:  [31mred\n       | ^"),
            ("a\n", 2, 1, "x:2:1: wrong"),
            ("a", 1, 2, "x:1:2: wrong\n     1 | a\n       |  ^"),
        ] {
            assert_eq!(shown(text, line, column), expected, "{text:?}");
        }
        let late = shown(&"\n".repeat(1_234_567), 1_234_567, 1);
        assert_eq!(late, "x:1234567:1: wrong\n1234567 | \n        | ^");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}here{}", "a ".repeat(500), " b".repeat(500));
        let shown = shown(&text, 1, 1_001);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.len() < 140), "{shown}");
        assert_eq!(lines[1].find("here"), lines[2].find("^^^^"), "{shown}");
    }
}
