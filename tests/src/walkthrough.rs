//! docs/walkthrough.md: a document whose every command has been run, with the output it really had.
//!
//! A block of ```` ```console ```` holds commands (`$ ..`, continued by lines of `> ..`) and what they printed. Between
//! blocks, comments that readers do not see say what happens in the lab: `<!-- lab: stop web2 -->`.

pub mod normal;

use std::{fmt::Write as _, path::PathBuf};

/// A part of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line that is for readers only.
    Line(String),
    /// What happens in the lab: the words after `lab:`.
    Lab(String),
    /// Commands and their outputs.
    Console(Vec<Step>),
}

/// A command and what it printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The shell's input; several lines if it continues.
    pub command: String,
    /// Standard output and error, and the exit code if it is not 0.
    pub output: String,
}

/// The document's place.
pub fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/walkthrough.md"))
}

/// Takes a document apart.
pub fn parse(text: &str) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "```console" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            pieces.push(Piece::Console(steps(&block)?));
        } else if let Some(what) = line.strip_prefix("<!-- lab: ") {
            let what = what.strip_suffix(" -->");
            let what = what.ok_or_else(|| anyhow::anyhow!("`{line}` does not end with -->"))?;
            pieces.push(Piece::Lab(what.to_owned()));
        } else {
            pieces.push(Piece::Line(line.to_owned()));
        }
    }
    Ok(pieces)
}

fn steps(block: &[&str]) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), output: String::new() });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            anyhow::bail!("a block of commands begins with `{line}`, not with `$ `");
        };
        match line.strip_prefix("> ") {
            // A continued command comes before any output.
            Some(more) if step.output.is_empty() => {
                step.command.push('\n');
                step.command.push_str(more);
            }
            _ => {
                step.output.push_str(line);
                step.output.push('\n');
            }
        }
    }
    Ok(steps)
}

/// Puts a document together again.
pub fn render(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces {
        // Writing to a string cannot fail.
        let _ = match piece {
            Piece::Line(line) => writeln!(text, "{line}"),
            Piece::Lab(what) => writeln!(text, "<!-- lab: {what} -->"),
            Piece::Console(steps) => {
                let body: String = steps.iter().map(shown).collect();
                writeln!(text, "```console\n{body}```")
            }
        };
    }
    text
}

fn shown(step: &Step) -> String {
    format!("$ {}\n{}", step.command.replace('\n', "\n> "), step.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A walk

Look:

```console
$ lb status
all well
$ cat > x <<'END'
> a
> END
$ lb check
bad
(exit code 3)
```
<!-- lab: stop web2 -->
Then.
";

    #[test]
    fn a_document_survives_being_taken_apart() {
        let pieces = parse(TEXT).unwrap();
        assert_eq!(render(&pieces), TEXT);
        let Piece::Console(steps) = &pieces[4] else { panic!("{pieces:#?}") };
        assert_eq!(steps[1].command, "cat > x <<'END'\na\nEND");
        assert_eq!(steps[2].output, "bad\n(exit code 3)\n");
        assert_eq!(pieces[5], Piece::Lab("stop web2".to_owned()));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert!(parse("```console\nlb status\n```\n").is_err());
        assert!(parse("<!-- lab: stop\n").is_err());
    }
}
