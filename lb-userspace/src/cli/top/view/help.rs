//! All keys, over the page.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Wrap},
};

use super::centred;
use crate::cli::top::{keys, palette::Palette};

/// Draws them.
pub fn draw(palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let wide = area.width >= 60;
    let lines: Vec<Line<'_>> = keys::HELP
        .iter()
        .map(|(key, meaning)| {
            let key = if wide { format!("{key:<17}") } else { format!("{key}: ") };
            Line::from(vec![Span::styled(key, palette.heading()), Span::raw(*meaning)])
        })
        .collect();
    // Narrow lines are wrapped, most of them once.
    let height = keys::HELP.len() as u16 * if wide { 1 } else { 2 } + 2;
    let place = centred(area, 78, height);
    let block = Block::bordered().title("Keys (any key goes back)");
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), place);
}
