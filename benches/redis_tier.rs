//! The Redis tier: how fast it writes and reads pages, beside bare commands with the same bytes. Needs no Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a measurement fails by panicking, prints what it found, and is no library"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::redis::Server;
use common::setting;
use dashstream::board::{Board, Epoch};
use dashstream::config::secret::SecretUrl;
use dashstream::metrics::Metrics;
use dashstream::pipeline::assemble::CHUNK_BYTES;
use dashstream::pipeline::page::PageRequest;
use dashstream::pipeline::retention::Bounds;
use dashstream::pipeline::window::Chunk;
use dashstream::redis::keys::Keys;
use dashstream::redis::reader::RedisTier;
use dashstream::redis::settings::{RedisSettings, Topology};
use dashstream::redis::state::RedisState;
use dashstream::redis::writer::{Batch, Writer};
use dashstream::wire::stream_frame::FrameBuilder;
use deadpool_redis::redis::{Value, cmd, pipe};

const EPOCH: &str = "cluster/topic/id";
const DEADLINE: Duration = Duration::from_secs(60);
/// Chunks of one batch, as `RedisWriter` takes them: 4 MiB.
const BATCH: usize = 64;
const ROUNDS: usize = 40;

/// Records of 1 KiB in chunks as the store makes them.
fn chunks(count: i64) -> Vec<Arc<Chunk>> {
    let value = [7_u8; 1024];
    let (mut chunks, mut builder, mut first) = (Vec::new(), FrameBuilder::with_capacity(CHUNK_BYTES), 0);
    for offset in 0..count {
        builder.record(offset, 1_700_000_000_000, &value, &[]);
        if builder.len() >= CHUNK_BYTES || offset + 1 == count {
            let next = offset + 1;
            let full = std::mem::replace(&mut builder, FrameBuilder::with_capacity(CHUNK_BYTES));
            let records = u32::try_from(next - first).unwrap();
            chunks.push(Arc::new(Chunk::new(0, first, next, records, full.seal(0, first, next))));
            first = next;
        }
    }
    chunks
}

fn verdict(what: &str, figure: f64, asked: f64) {
    println!("    {} {what}: {figure:.2} (asked: {asked})", if figure >= asked { "ok  " } else { "MISS" });
}

fn main() {
    let count: i64 = setting("BENCH_RECORDS", 200_000);
    let server = Server::start().unwrap();
    let settings = RedisSettings {
        url: SecretUrl::new(&server.url),
        topology: Topology::Standalone,
        nodes: Vec::new(),
        key_prefix: "bench".into(),
        connect_timeout: DEADLINE,
        response_timeout: DEADLINE,
        pool_size: 4,
        bounds: Bounds { offsets: 1 << 40, bytes: 1 << 40, age_ms: 3_600_000 },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let chunks = chunks(count);
    let key = Keys::new("bench").stream(1, EPOCH, 0).unwrap();
    write(&server, &settings, &runtime, &chunks, &key);
    read(&server, &settings, &runtime, &key, count);
}

fn write(
    server: &Server,
    settings: &RedisSettings,
    runtime: &tokio::runtime::Runtime,
    chunks: &[Arc<Chunk>],
    key: &str,
) {
    let records: u32 = chunks.iter().map(|chunk| chunk.records).sum();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    let mut writer = Writer::new(settings.clone(), RedisState::new(Arc::clone(&metrics)), metrics).unwrap();
    let mut client = server.client().unwrap();
    for part in chunks.chunks(BATCH) {
        let begun = Instant::now();
        let batch = Batch { key: key.into(), partition: 0, chunks: part.to_vec() };
        for result in runtime.block_on(writer.write(&[batch], Instant::now() + DEADLINE)) {
            result.unwrap();
        }
        ours += begun.elapsed();
        let begun = Instant::now();
        let mut commands = pipe();
        for chunk in part {
            commands
                .cmd("XADD")
                .arg("bare")
                .arg(format!("{}-1", chunk.next - 1))
                .arg("b")
                .arg(&chunk.message()[..])
                .ignore();
        }
        let () = commands.query(&mut client).unwrap();
        bare += begun.elapsed();
    }
    let rate = |took: Duration| f64::from(records) / took.as_secs_f64();
    println!("redis_tier: {records} records of 1 KiB in {} chunks", chunks.len());
    println!("  written {:.0}/s, by bare XADD {:.0}/s", rate(ours), rate(bare));
    println!("  memory {:.0} bytes a record", server.memory(key).unwrap() as f64 / f64::from(records));
    verdict("of the bare rate", rate(ours) / rate(bare), 0.5);
}

fn read(server: &Server, settings: &RedisSettings, runtime: &tokio::runtime::Runtime, key: &str, count: i64) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let board = Board::new();
    board.open_epoch(Epoch { number: 1, name: EPOCH.into() });
    let state = RedisState::new(Arc::clone(&metrics));
    let tier = RedisTier::new(settings, Keys::new("bench"), board, state, metrics).unwrap();
    let mut client = server.client().unwrap();
    for page in [1_000_u32, 10_000] {
        let (mut ours, mut bare, mut records, mut entries) = (Duration::ZERO, Duration::ZERO, 0_u64, 0);
        for round in 0..ROUNDS {
            let from = i64::try_from(round).unwrap() * 977 % (count - i64::from(page)).max(1);
            let request = PageRequest {
                epoch: 1,
                epoch_name: EPOCH.into(),
                partition: 0,
                from,
                until: i64::MAX,
                max_records: page,
                max_bytes: usize::MAX,
            };
            let begun = Instant::now();
            let answer = runtime.block_on(tier.page(&request, Instant::now() + DEADLINE)).unwrap();
            let took = begun.elapsed();
            // The first one learns how large entries are.
            if round == 0 {
                continue;
            }
            ours += took;
            records += answer.chunks.iter().map(|chunk| u64::from(chunk.records)).sum::<u64>();
            entries += answer.chunks.len();
            let begun = Instant::now();
            let mut range = cmd("XRANGE");
            let _: Value =
                range.arg(key).arg(from).arg("+").arg("COUNT").arg(answer.chunks.len()).query(&mut client).unwrap();
            bare += begun.elapsed();
        }
        let pages = (ROUNDS - 1) as f64;
        println!(
            "  pages of {page}: {:.2} ms, bare XRANGE of the same {:.0} entries {:.2} ms; {:.0} records a page",
            ours.as_secs_f64() * 1000.0 / pages,
            entries as f64 / pages,
            bare.as_secs_f64() * 1000.0 / pages,
            records as f64 / pages
        );
        verdict("of the bare rate", bare.as_secs_f64() / ours.as_secs_f64(), 0.5);
    }
}
