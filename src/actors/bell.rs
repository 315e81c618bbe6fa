//! Wakes the sessions that one web thread serves together: one signal to the thread for all of them.
//!
//! Waking a task of another thread costs a lock and often a system call; a flush that reaches a thousand sessions would pay
//! that a thousand times. So the flush hands over their wakers, and the thread wakes its own tasks, which costs next to
//! nothing. It must not know what the woken tasks do.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;

thread_local! {
    static HERE: OnceCell<Bell> = const { OnceCell::new() };
}

/// The bell of one thread. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    due: Mutex<Vec<Waker>>,
    ringer: AtomicWaker,
}

impl Bell {
    /// The bell of the calling thread, which must run actix's runtime; its first call starts the task that rings.
    pub fn here() -> Self {
        HERE.with(|cell| cell.get_or_init(Self::start).clone())
    }

    fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let ringing = Arc::clone(&inner);
        actix::spawn(poll_fn(move |cx| {
            // Registered first: wakers that come between the look and the registration must wake us.
            ringing.ringer.register(cx.waker());
            let due = std::mem::take(&mut *ringing.due.lock().unwrap_or_else(PoisonError::into_inner));
            due.into_iter().for_each(Waker::wake);
            Poll::<()>::Pending
        }));
        Self(inner)
    }

    fn ring(&self, wakers: &mut Vec<Waker>) {
        self.0.due.lock().unwrap_or_else(PoisonError::into_inner).append(wakers);
        self.0.ringer.wake();
    }
}

/// Who is to be woken at the end of a flush, by bell. Dropping it wakes them all.
#[derive(Debug, Default)]
pub struct Wakes(Vec<(Bell, Vec<Waker>)>);

impl Wakes {
    /// One more. Without a bell it is woken at once.
    pub fn add(&mut self, bell: Option<&Bell>, waker: Waker) {
        let Some(bell) = bell else {
            waker.wake();
            return;
        };
        // As many bells as web threads: a handful.
        match self.0.iter_mut().find(|(known, _)| Arc::ptr_eq(&known.0, &bell.0)) {
            Some((_, wakers)) => wakers.push(waker),
            None => self.0.push((bell.clone(), vec![waker])),
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for (bell, wakers) in &mut self.0 {
            bell.ring(wakers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[actix::test]
    async fn whoever_was_added_is_woken_once_when_the_flush_ends_also_from_another_thread() {
        let bell = Bell::here();
        let woken = Arc::new(Count::default());
        let adding = Arc::clone(&woken);
        let before = std::thread::spawn(move || {
            let mut wakes = Wakes::default();
            for _ in 0..100 {
                wakes.add(Some(&bell), Arc::clone(&adding).into());
            }
            adding.0.load(Ordering::Acquire)
        });
        assert_eq!(before.join().unwrap(), 0, "nobody before the end of the flush");
        while woken.0.load(Ordering::Acquire) < 100 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(woken.0.load(Ordering::Acquire), 100);
    }

    #[test]
    fn without_a_bell_it_is_woken_at_once() {
        let woken = Arc::new(Count::default());
        let mut wakes = Wakes::default();
        wakes.add(None, Arc::clone(&woken).into());
        assert_eq!(woken.0.load(Ordering::Acquire), 1);
        drop(wakes);
        assert_eq!(woken.0.load(Ordering::Acquire), 1);
    }
}
