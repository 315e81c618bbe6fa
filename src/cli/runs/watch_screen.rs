//! The whole screen of a terminal: drawn in place, and given back as it was, however the program ends.
//!
//! It must not know what is drawn.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};

/// Whether the terminal is to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, taken over until this is dropped.
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open() -> anyhow::Result<Self> {
        // A panic is told on the screen that the user sees, not on the one that is about to vanish.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        // Keys come from standard input; where that is none, only signals end.
        if std::io::stdin().is_terminal() {
            enable_raw_mode()?;
        }
        TAKEN.store(true, Ordering::SeqCst);
        let screen = Self(());
        execute!(std::io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        let (columns, rows) = size().unwrap_or((80, 24));
        (columns.into(), rows.into())
    }

    /// Draws lines from the top; what was there is gone.
    pub(super) fn draw(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        queue!(stdout, cursor::MoveTo(0, 0))?;
        for (at, line) in lines.iter().enumerate() {
            let end = if at == 0 { "" } else { "\r\n" };
            write!(stdout, "{end}{line}")?;
            queue!(stdout, Clear(ClearType::UntilNewLine))?;
        }
        queue!(stdout, Clear(ClearType::FromCursorDown))?;
        Ok(stdout.flush()?)
    }

    /// Whether q, Escape or Ctrl-C was pressed. Without a screen there are no keys.
    pub(super) fn wants_to_leave() -> anyhow::Result<bool> {
        if !TAKEN.load(Ordering::SeqCst) || !std::io::stdin().is_terminal() {
            return Ok(false);
        }
        while poll(Duration::ZERO)? {
            if let Event::Key(key) = read()? {
                let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                let leaves = interrupts || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
                if leaves && key.kind != KeyEventKind::Release {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once, whoever comes first.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(std::io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
