//! Waiting for a condition with a bound. The only place in the tests that sleeps.

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Bounds that guard against hanging, not promises of speed, are multiplied by `DASHSTREAM_TEST_PATIENCE` (default 1).
fn patience() -> f64 {
    std::env::var("DASHSTREAM_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

/// Probes until the answer is `Ok`, and gives it back.
///
/// # Panics
/// When `bound` passes; the message holds the last `Err`.
#[track_caller]
pub fn eventually<T>(what: &str, bound: Duration, probe: impl FnMut() -> Result<T, String>) -> T {
    wait(what, bound.mul_f64(patience()), probe)
}

/// As [`eventually`], for a bound that is itself the promise under test: patience does not stretch it.
///
/// # Panics
/// When `bound` passes; the message holds the last `Err`.
#[track_caller]
pub fn within<T>(what: &str, bound: Duration, probe: impl FnMut() -> Result<T, String>) -> T {
    wait(what, bound, probe)
}

#[track_caller]
fn wait<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() >= bound => {
                panic!("waited {:.1} s for: {what}; last seen: {last}", start.elapsed().as_secs_f64())
            }
            Err(_) => std::thread::sleep(POLL_EVERY),
        }
    }
}

/// Lets `duration` pass (a fault that lasts) and probes all the time that the condition holds.
///
/// # Panics
/// At the first `Err`.
#[track_caller]
pub fn throughout(what: &str, duration: Duration, mut probe: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < duration {
        if let Err(seen) = probe() {
            panic!("{:.1} s into: {what}; seen: {seen}", start.elapsed().as_secs_f64());
        }
        // Such probes ask the service over HTTP: often enough, without being a load.
        std::thread::sleep(POLL_EVERY * 5);
    }
}
