//! The terminal: taken over, and given back however `lb top` ends.

use anyhow::Context as _;
use ratatui::{DefaultTerminal, Frame};

/// The whole screen. Dropping it gives the terminal back, and so does a panic (by ratatui's hook).
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over.
    pub fn open() -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().context("cannot take over the terminal")?;
        Ok(Self { terminal })
    }

    /// Draws one picture.
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        self.terminal.draw(picture).context("cannot draw on the terminal")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}
