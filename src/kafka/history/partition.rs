//! One partition while it is read for a page: takes records, judges and encodes them as the live stream does, and knows
//! when the page is complete.
//!
//! It must not know Kafka's client.

use std::sync::Arc;
use std::time::Instant;

use super::queue::{Answer, PageJob};
use crate::kafka::batch::{BatchBuilder, BatchLimits, RecordView};
use crate::pipeline::assemble::{Assembler, Judged};
use crate::pipeline::decode::{JudgeSettings, Verdict};
use crate::pipeline::page::{Page, PageRequest, TierError};
use crate::pipeline::safe_judge::SafeJudge;
use crate::pipeline::sequence::SequenceItem;
use crate::pipeline::window::Chunk;

/// So much is judged at once.
const BATCH: BatchLimits = BatchLimits { records: 250, bytes: 256 * 1024 };

/// Judges records of any partition; its buffers are used again.
#[derive(Debug)]
pub(super) struct Judging {
    judge: SafeJudge,
    verdicts: Vec<Verdict>,
    items: Vec<SequenceItem>,
}

impl Judging {
    pub(super) fn new(settings: JudgeSettings) -> Self {
        // What the hashes are for, the sequence check, does not happen here.
        Self { judge: SafeJudge::new(settings, 0), verdicts: Vec::new(), items: Vec::new() }
    }
}

/// The reading of one page, and of what is there behind it.
#[derive(Debug)]
pub(super) struct PartitionRead {
    request: PageRequest,
    deadline: Instant,
    put_back: u32,
    answer: Option<Answer<Page>>,
    /// The log did not end below this when the reading began, as far as the live reader had come.
    known_end: i64,
    /// Bytes that may be taken beyond the page, for the next one.
    ahead_bytes: usize,
    builder: BatchBuilder,
    assembler: Assembler,
    chunks: Vec<Arc<Chunk>>,
    records: u32,
    bytes: usize,
    /// How many of the chunks make the page, once that is decided.
    page: Option<usize>,
    /// Nothing more is taken.
    closed: bool,
    low: Option<i64>,
    failed: Option<TierError>,
}

impl PartitionRead {
    pub(super) fn new(job: PageJob, known_end: i64, ahead_bytes: usize) -> Self {
        let PageJob { request, deadline, put_back, answer } = job;
        let (partition, from) = (request.partition, request.from);
        Self {
            request,
            deadline,
            put_back,
            answer: Some(answer),
            known_end,
            ahead_bytes,
            builder: BatchBuilder::new(partition, from),
            assembler: Assembler::new(partition, from),
            chunks: Vec::new(),
            records: 0,
            bytes: 0,
            page: None,
            closed: false,
            low: None,
            failed: None,
        }
    }

    /// The next offset to read.
    pub(super) fn position(&self) -> i64 {
        self.builder.position()
    }

    /// Whether there is nothing to answer yet, and somebody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.page.is_none() && self.answer.as_ref().is_some_and(|answer| !answer.is_given_up())
    }

    /// Whether it can be answered.
    pub(super) fn is_complete(&self) -> bool {
        self.page.is_some() && self.answer.as_ref().is_some_and(|answer| !answer.is_given_up())
    }

    /// Until when somebody waits.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How many rounds have left it unread before this one.
    pub(super) const fn put_back(&self) -> u32 {
        self.put_back
    }

    /// Whether nothing more is taken.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes a record. What was taken before, or is not wanted, is passed over.
    pub(super) fn take(&mut self, judging: &mut Judging, record: RecordView<'_>) {
        if self.closed || record.offset < self.position() {
            return;
        }
        if record.offset >= self.request.until {
            self.finish_at(judging, self.request.until);
            return;
        }
        // Nobody looks at keys and headers of history.
        let record = RecordView { key: None, ..record };
        let value_bytes = record.value.map_or(0, <[u8]>::len);
        if self.builder.push(record, |_| (), BATCH) {
            self.judge(judging);
        }
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(value_bytes);
        if self.position() >= self.request.until {
            // Nothing more is wanted: the end of the log, which Kafka tells with the next fetch, is not waited for.
            self.close(judging);
        } else if self.page.is_none() {
            if self.records >= self.request.max_records || self.bytes >= self.request.max_bytes {
                self.complete(judging);
                self.bytes = 0;
                self.closed = self.ahead_bytes == 0;
            }
        } else if self.bytes >= self.ahead_bytes {
            self.close(judging);
        }
    }

    /// The log ends here for now: up to what is known to be in it, the rest holds no record.
    pub(super) fn end_of_log(&mut self, judging: &mut Judging) {
        if !self.closed {
            self.finish_at(judging, self.request.until.min(self.known_end).max(self.position()));
        }
    }

    /// The position is not in the log, which has `[low, high)`. Answers whether it is so.
    pub(super) fn out_of_log(&mut self, judging: &mut Judging, low: i64, high: i64) -> bool {
        let position = self.position();
        if (low..=high).contains(&position) {
            return false;
        }
        if position < low {
            // Perhaps retention came between two reads of this page; then what was read is the page.
            self.low = (position == self.request.from).then_some(low);
        } else if position <= self.known_end {
            // The live reader has been further: this is another log.
            self.failed = Some(TierError::EpochOver);
        }
        self.close(judging);
        true
    }

    /// Kafka refuses.
    pub(super) fn fail(&mut self, judging: &mut Judging, error: TierError) {
        if self.page.is_none() {
            self.failed = Some(error);
        }
        self.close(judging);
    }

    /// Covers what holds no record, up to `end`, and takes nothing more.
    fn finish_at(&mut self, judging: &mut Judging, end: i64) {
        self.builder.cover(end);
        self.close(judging);
    }

    /// Takes nothing more.
    pub(super) fn close(&mut self, judging: &mut Judging) {
        self.complete(judging);
        self.closed = true;
    }

    /// Seals what was taken; the first time, that is the page.
    fn complete(&mut self, judging: &mut Judging) {
        self.judge(judging);
        self.chunks.extend(self.assembler.seal().map(Arc::new));
        self.page.get_or_insert(self.chunks.len());
    }

    fn judge(&mut self, judging: &mut Judging) {
        let Some((mut batch, _)) = self.builder.finish(self.request.epoch, None) else { return };
        let Judging { judge, verdicts, items } = judging;
        verdicts.clear();
        let mut redacted = Vec::new();
        verdicts.extend(batch.records.iter().enumerate().map(|(index, record)| {
            items.clear();
            let verdict = judge.judge(record.value.map(|span| span.of(&batch.arena)), items);
            redacted.extend(judge.take_redacted().map(|value| (index, value)));
            verdict
        }));
        batch.replace(redacted);
        let judged = Judged { batch: &batch, verdicts, findings: &[] };
        let chunks = &mut self.chunks;
        if self.assembler.take(judged, |chunk| chunks.push(Arc::new(chunk))).is_err() {
            // Both begin at the same offset and only go on from there.
            self.failed = Some(TierError::Unavailable("a page was read with a hole in it".into()));
        }
    }

    /// What was read without a hole, also beyond the page and when the page did not come in time.
    pub(super) fn chunks(&self) -> &[Arc<Chunk>] {
        if self.failed.is_none() { &self.chunks } else { &[] }
    }

    /// The question again, when it is not answered yet and there is time left: for another round.
    pub(super) fn give_back(&mut self) -> Option<PageJob> {
        if !self.is_wanted() || self.failed.is_some() || Instant::now() >= self.deadline {
            return None;
        }
        let answer = self.answer.take()?;
        Some(PageJob {
            request: self.request.clone(),
            deadline: self.deadline,
            put_back: self.put_back.saturating_add(1),
            answer,
        })
    }

    /// Answers whoever waits, once. A reading that was not completed has passed its deadline.
    pub(super) fn answer(&mut self, epoch: &Result<(), TierError>) {
        let Some(answer) = self.answer.take() else { return };
        answer.send(match (epoch, &self.failed, self.page) {
            (Err(error), ..) | (Ok(()), Some(error), _) => Err(error.clone()),
            (Ok(()), None, Some(count)) => {
                Ok(Page { chunks: self.chunks.iter().take(count).cloned().collect(), low: self.low })
            }
            (Ok(()), None, None) => Err(TierError::Timeout),
        });
    }
}
