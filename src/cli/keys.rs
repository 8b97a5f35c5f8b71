//! The keys `+`, `-`, `*`, `/` and `q` while a command runs in a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// `+`: a higher rate.
    Faster,
    /// `-`: a lower rate.
    Slower,
    /// `*`: ten times the rate.
    Tenfold,
    /// `/`: a tenth of the rate.
    Tenth,
    /// `q` or Ctrl-C: stop.
    Quit,
}

/// Reads keys as they are pressed; the terminal is as before when it is dropped.
pub(super) struct Keys(());

impl Keys {
    /// `None` when nobody sits at a terminal.
    pub(super) fn open() -> Option<Self> {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        (terminal && terminal::enable_raw_mode().is_ok()).then_some(Self(()))
    }

    /// The next key within `wait`. Blocks that long.
    pub(super) fn next(&self, wait: Duration) -> Option<Key> {
        if !event::poll(wait).unwrap_or(false) {
            return None;
        }
        let Ok(Event::Key(key)) = event::read() else { return None };
        match key.code {
            _ if key.kind == KeyEventKind::Release => None,
            KeyCode::Char('+' | '=') => Some(Key::Faster),
            KeyCode::Char('-' | '_') => Some(Key::Slower),
            KeyCode::Char('*' | 'x') => Some(Key::Tenfold),
            KeyCode::Char('/') => Some(Key::Tenth),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            _ => None,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that went away.
        let _ = terminal::disable_raw_mode();
    }
}
