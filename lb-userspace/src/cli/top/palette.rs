//! Colours, where they are wanted; what they say is always said in words, too.

use std::io::{self, IsTerminal as _};

use ratatui::style::{Color, Modifier, Style};

use crate::cli::output::{Tone, tone_of, wants_colour};

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    colour: bool,
}

impl Palette {
    /// Without any.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };
    /// With them.
    #[cfg(test)]
    pub const COLOURED: Self = Self { colour: true };

    /// As standard output and `NO_COLOR` say.
    pub fn of_stdout() -> Self {
        Self { colour: io::stdout().is_terminal() && wants_colour() }
    }

    /// A word that says how something is.
    pub fn state(self, word: &str) -> Style {
        match tone_of(word) {
            Some(Tone::Good) => self.coloured(Color::Green),
            Some(Tone::Changing) => self.coloured(Color::Yellow),
            Some(Tone::Bad) => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
            None => Style::new(),
        }
    }

    /// Nothing to say.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// A heading.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What is less important.
    pub fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The row that keys are about.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Something is wrong.
    pub fn alarm(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Something has worked.
    pub fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    /// A course over time.
    pub fn course(self) -> Style {
        self.coloured(Color::Cyan)
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}
