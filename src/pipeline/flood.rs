//! Which of many equal events get a log line of their own: the first few, then one summary per period.
//!
//! It must not know the log or the clock: whoever asks also says when a period is over.

/// Keeps a flood of equal events out of the log.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    first: u32,
    lines_left: u32,
    unlogged: u64,
}

impl Flood {
    /// Lets `first` events through before it begins to count.
    pub const fn new(first: u32) -> Self {
        Self { first, lines_left: first, unlogged: 0 }
    }

    /// Notes one event; true when it gets a line of its own.
    pub const fn note(&mut self) -> bool {
        if self.lines_left > 0 {
            self.lines_left -= 1;
            return true;
        }
        self.unlogged = self.unlogged.saturating_add(1);
        false
    }

    /// Ends a period: how many events had no line, if any. After a period without such events the next ones get lines again.
    pub const fn end_period(&mut self) -> Option<u64> {
        if self.unlogged == 0 {
            self.lines_left = self.first;
            return None;
        }
        let unlogged = self.unlogged;
        self.unlogged = 0;
        Some(unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_first_lines_and_then_one_summary_per_period() {
        let mut flood = Flood::new(3);
        assert_eq!((0..1_000_000).filter(|_| flood.note()).count(), 3);
        assert_eq!(flood.end_period(), Some(999_997));
        assert_eq!((0..1000).filter(|_| flood.note()).count(), 0);
        assert_eq!(flood.end_period(), Some(1000));
        assert_eq!(flood.end_period(), None);
        assert!(flood.note(), "after a quiet period");
    }
}
