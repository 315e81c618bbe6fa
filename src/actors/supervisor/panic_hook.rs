//! One structured event per panic, and its text for whoever reports the end of an actor.
//!
//! Nothing may depend on the hook: without it a panic is reported without its text. Panics that are caught one by one
//! (a record that cannot be judged) may come in floods, so the events are limited.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::time::Duration;

use crate::telemetry::RateLimited;

/// Longest panic text that is kept, in bytes.
const TEXT_MAX: usize = 1024;
/// Further panics of a second are only counted.
static EVENTS: RateLimited = RateLimited::new(10, Duration::from_secs(1));

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook, once per process. Until a log subscriber is set, panics are also shown the way they were before.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            note(info);
            if !tracing::dispatcher::has_been_set() {
                before(info);
            }
        }));
    });
}

/// The text of a caught panic.
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<&str>() {
        Some(text) => text,
        None => payload.downcast_ref::<String>().map_or("panic without a text", String::as_str),
    }
}

/// The text and place of the last panic of this thread, taken out.
pub(super) fn last_panic() -> Option<String> {
    LAST.try_with(|last| last.try_borrow_mut().ok()?.take()).ok().flatten()
}

fn note(info: &PanicHookInfo<'_>) {
    let text = cut(panic_text(info.payload()), TEXT_MAX);
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let entry = format!("{text} ({place})");
    // A thread that is ending has no storage left; then the text is in the log alone.
    let _ = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = Some(entry)));
    if let Some(suppressed) = EVENTS.admit() {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let thread = std::thread::current();
        tracing::error!(panic = text, place, thread = thread.name(), suppressed, backtrace, "panic");
    }
}

/// At most `max` bytes of a text, cut at a character.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_panic_can_be_fetched_once_on_its_thread() {
        install_panic_hook();
        let (here, again, elsewhere) = std::thread::spawn(|| {
            let caught = std::panic::catch_unwind(|| panic!("disk {} is on fire", 3));
            assert_eq!(panic_text(&*caught.expect_err("a panic")), "disk 3 is on fire");
            let elsewhere = std::thread::spawn(last_panic).join().expect("no panic there");
            (last_panic(), last_panic(), elsewhere)
        })
        .join()
        .expect("the panic was caught");
        assert!(here.expect("a text").starts_with("disk 3 is on fire (src/actors/supervisor/panic_hook.rs:"));
        assert_eq!((again, elsewhere), (None, None));
    }

    #[test]
    fn long_texts_are_cut_at_characters() {
        for max in 0..=9 {
            let text = cut("añ漢🦀", max);
            assert!(text.len() <= max && "añ漢🦀".starts_with(text), "{max}");
        }
        assert_eq!(cut("añ漢🦀", 100), "añ漢🦀");
    }
}
