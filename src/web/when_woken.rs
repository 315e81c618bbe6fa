//! Polls a part of a task only when that part was woken.
//!
//! A task is polled as a whole whenever any of its parts has something to do. A part that costs more to ask than to skip, such
//! as an actor with its mailbox and timers beside a stream of data, gets a waker of its own here. It must not know what the
//! part is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream;
use futures_util::task::AtomicWaker;

/// A stream with a waker of its own.
pub(super) struct WhenWoken<S> {
    stream: S,
    note: Arc<Note>,
    waker: Waker,
}

#[derive(Debug)]
struct Note {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<S> WhenWoken<S> {
    /// The first poll reaches the stream.
    pub(super) fn new(stream: S) -> Self {
        let note = Arc::new(Note { woken: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { stream, waker: Arc::clone(&note).into(), note }
    }
}

impl<S> std::fmt::Debug for WhenWoken<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WhenWoken").field("note", &self.note).finish_non_exhaustive()
    }
}

impl<S: Stream + Unpin> Stream for WhenWoken<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        // Registered first: a wake between the look and the registration must reach the task.
        this.note.task.register(cx.waker());
        if !this.note.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut this.stream).poll_next(&mut Context::from_waker(&this.waker));
        if poll.is_ready() {
            // A stream that is ready owes no wake for what follows.
            this.note.woken.store(true, Ordering::Release);
        }
        poll
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::stream::poll_fn;

    use super::*;

    #[test]
    fn a_part_is_polled_when_it_was_woken_or_ready_and_not_when_the_task_was() {
        let polls = Rc::new(Cell::new(0));
        let (counted, kept) = (Rc::clone(&polls), Rc::new(Cell::new(None::<Waker>)));
        let keep = Rc::clone(&kept);
        let mut part = WhenWoken::new(poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            keep.set(Some(cx.waker().clone()));
            if counted.get() == 2 { Poll::Ready(Some(())) } else { Poll::Pending }
        }));
        let cx = &mut Context::from_waker(Waker::noop());
        for (wake, ready, expected) in [
            (false, false, 1),
            (false, false, 1),
            (true, true, 2),
            (false, false, 3),
            (false, false, 3),
            (true, false, 4),
        ] {
            if wake {
                kept.take().unwrap().wake();
            }
            assert_eq!(Pin::new(&mut part).poll_next(cx).is_ready(), ready);
            assert_eq!(polls.get(), expected);
        }
    }

    #[test]
    fn its_wake_reaches_the_task() {
        struct Task(AtomicBool);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Release);
            }
        }
        let kept = Rc::new(Cell::new(None::<Waker>));
        let keep = Rc::clone(&kept);
        let mut part = WhenWoken::new(poll_fn(move |cx| {
            keep.set(Some(cx.waker().clone()));
            Poll::<Option<()>>::Pending
        }));
        let task = Arc::new(Task(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&task));
        assert!(Pin::new(&mut part).poll_next(&mut Context::from_waker(&waker)).is_pending());
        kept.take().unwrap().wake();
        assert!(task.0.load(Ordering::Acquire));
    }
}
