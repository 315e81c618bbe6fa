//! Records that keep coming while things break: runs of agents, and now and then one that cannot be processed. What came of
//! each is known.

use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::ledger::Fingerprint;
use super::truth::{Expected, Truth};
use crate::generate::GeneratorSettings;
use crate::generate::defects::{Defects, Record};
use crate::generate::records::{Records, Source};
use crate::kafka::connection::KafkaConnection;
use crate::kafka::load_producer::LoadError;
use crate::kafka::placed_load::{Placed, send};
use crate::wire::stream::SkipReason;

/// One of so many records cannot be processed. No multiple of the number of bad values, so that each has its turn.
const BAD: usize = 51;
/// Values that no configuration accepts, and how that is told.
const BAD_VALUES: [(Option<&[u8]>, SkipReason); 5] = [
    (None, SkipReason::PayloadMissing),
    (Some(b""), SkipReason::PayloadMissing),
    (Some(b"\x7fnobody defined this framing"), SkipReason::UnknownFraming),
    (Some(b"\x01no zstd"), SkipReason::DecompressionFailed),
    (Some(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff"), SkipReason::InvalidProtobuf),
];

/// A producer on a thread of its own.
#[derive(Debug)]
pub(super) struct Load {
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<Vec<Placed>, LoadError>>>,
}

impl Load {
    /// Sends about `rate` records per second, one partition after the other.
    pub(super) fn start(
        connection: &KafkaConnection,
        topic: &str,
        partitions: i32,
        rate: f64,
        seed: u64,
    ) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let records = mixed(seed, 0..partitions)?;
        let (connection, topic, stopped) = (connection.clone(), topic.to_owned(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || send(&connection, &topic, rate, records, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it has ended before it should.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, and adds all that lies in the topic.
    pub(super) fn stop(mut self, truth: &mut Truth) -> Result<(), LoadError> {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            learn(truth, thread.join().map_err(|_| LoadError::Fatal("its thread panicked".into()))??);
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends a few records to one partition, and waits for them.
pub(super) fn publish(
    connection: &KafkaConnection,
    topic: &str,
    partition: i32,
    count: usize,
    seed: u64,
    truth: &mut Truth,
) -> Result<(), LoadError> {
    let records = mixed(seed, partition..partition + 1).map_err(LoadError::Encoder)?.take(count);
    learn(truth, send(connection, topic, f64::INFINITY, records, &CancellationToken::new())?);
    Ok(())
}

fn mixed(seed: u64, partitions: std::ops::Range<i32>) -> std::io::Result<impl Iterator<Item = (i32, Record)> + Send> {
    let generator = GeneratorSettings { seed, ..GeneratorSettings::default() };
    let mut records = Records::new(&Source::Runs { generator, defects: Defects::default() })?;
    let good = std::iter::from_fn(move || records.next_record(now_us()));
    let bad = BAD_VALUES.iter().cycle();
    let mixed = good.zip(bad).enumerate().map(|(number, (good, (bad, _)))| match number % BAD {
        1 => Record { value: bad.map(<[u8]>::to_vec), ..good },
        _ => good,
    });
    Ok(partitions.cycle().zip(mixed))
}

fn learn(truth: &mut Truth, placed: Vec<Placed>) {
    truth.expected.extend(placed.into_iter().map(|Placed { partition, offset, value }| {
        let bad = BAD_VALUES.iter().find(|(bad, _)| *bad == value.as_deref());
        let record = || Expected::Record(Fingerprint::of(value.as_deref().unwrap_or_default()));
        ((partition, offset), bad.map_or_else(record, |(_, reason)| Expected::Skip(*reason)))
    }));
}

fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
