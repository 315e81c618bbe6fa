//! A stretch of time in a run: a graph, a node's execution, a call of a model or a tool.
//!
//! It must not know messages.

/// Longer than this no step takes: such a duration is a mistake of its producer. Ten years.
const LONGEST_US: i64 = 10 * 366 * 86_400 * 1_000_000;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanKind {
    /// A whole graph.
    Graph,
    /// One execution of a node.
    Node,
    /// A call of a model.
    Llm,
    /// A call of a tool.
    Tool,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanStatus {
    /// No end has been seen.
    #[default]
    Unfinished,
    /// It ended well.
    Done,
    /// It ended with an error.
    Failed,
}

impl SpanStatus {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// How long it took, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// Its producer measured it, in microseconds.
    Told(u64),
    /// The time between its first and its last message, in microseconds.
    Between(u64),
    /// Nobody knows: it has no end, no start and no duration, or ends before it starts.
    Unknown,
}

impl Took {
    /// Microseconds, when they are known.
    pub const fn micros(self) -> Option<u64> {
        match self {
            Self::Told(micros) | Self::Between(micros) => Some(micros),
            Self::Unknown => None,
        }
    }
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub struct Span {
    /// What it is.
    pub kind: SpanKind,
    /// Of a graph its name, of a node, a model, a tool too; may be empty.
    pub name: String,
    /// Index of the span that it lies in.
    pub parent: Option<usize>,
    /// The node that it is said to belong to; empty for graphs and nodes.
    pub node: String,
    /// When its first message was made, in Unix microseconds.
    pub start_us: Option<i64>,
    /// When its last one was.
    pub end_us: Option<i64>,
    /// The duration as its end tells it; 0 when it does not.
    pub told_us: i64,
    /// How it stands.
    pub status: SpanStatus,
    /// Why it failed, or what went wrong on the way.
    pub error: String,
    /// How often it was tried again.
    pub retries: u32,
    /// Pieces of its answer.
    pub chunks: u64,
    /// Whether only the summary at the run's end tells of it.
    pub from_trace: bool,
}

impl Span {
    /// One that has begun.
    pub const fn begun(kind: SpanKind, name: String, start_us: Option<i64>) -> Self {
        Self {
            kind,
            name,
            parent: None,
            node: String::new(),
            start_us,
            end_us: None,
            told_us: 0,
            status: SpanStatus::Unfinished,
            error: String::new(),
            retries: 0,
            chunks: 0,
            from_trace: false,
        }
    }

    /// Ends it.
    pub fn end(&mut self, end_us: Option<i64>, told_us: i64, status: SpanStatus) {
        self.end_us = end_us;
        self.status = status;
        if told_us != 0 {
            self.told_us = told_us;
        }
    }

    /// How long it took.
    pub const fn took(&self) -> Took {
        if matches!(self.status, SpanStatus::Unfinished) {
            return Took::Unknown;
        }
        if 0 < self.told_us && self.told_us <= LONGEST_US {
            return Took::Told(self.told_us.unsigned_abs());
        }
        match (self.start_us, self.end_us) {
            (Some(start), Some(end)) if start <= end => Took::Between(end.abs_diff(start)),
            _ => Took::Unknown,
        }
    }

    /// Whether its producer told a duration that cannot be.
    pub const fn is_absurd(&self) -> bool {
        self.told_us < 0 || self.told_us > LONGEST_US
    }

    /// From when to when, where both are known.
    pub fn interval(&self) -> Option<(i64, i64)> {
        let took = i64::try_from(self.took().micros()?).ok()?;
        match (self.start_us, self.end_us) {
            (Some(start), _) => Some((start, start.saturating_add(took))),
            (None, Some(end)) => Some((end.saturating_sub(took), end)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_are_told_measured_missing_and_absurd_are_kept_apart() {
        let span = |start, end, told, status| {
            let mut span = Span::begun(SpanKind::Node, "a".to_owned(), start);
            span.end(end, told, status);
            span
        };
        let done = |start, end, told| span(start, end, told, SpanStatus::Done);
        assert_eq!(done(Some(10), Some(30), 7).took(), Took::Told(7));
        assert_eq!(done(None, None, 7).took(), Took::Told(7));
        assert_eq!(done(Some(10), Some(30), 0).took(), Took::Between(20));
        assert_eq!(done(Some(10), Some(10), 0).took(), Took::Between(0));
        assert_eq!(done(Some(30), Some(10), 0).took(), Took::Unknown);
        assert_eq!(done(None, Some(10), 0).took(), Took::Unknown);
        assert_eq!(span(Some(10), None, 0, SpanStatus::Unfinished).took(), Took::Unknown);
        for absurd in [-1, i64::MIN, i64::MAX] {
            let span = done(Some(10), Some(30), absurd);
            assert!(span.is_absurd());
            assert_eq!(span.took(), Took::Between(20));
        }
        assert_eq!(done(Some(i64::MIN), Some(i64::MAX), 0).took(), Took::Between(u64::MAX));
        assert_eq!(done(None, Some(30), 7).interval(), Some((23, 30)));
    }
}
