//! The way to a collector: OTLP over HTTP, in batches, from a thread of its own behind a bounded queue.
//!
//! It must not know what spans are about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
};
use prometheus::IntCounter;

use super::Span;
use crate::config::secret::SecretUrl;
use crate::http_client;
use crate::metrics::Metrics;
use crate::pipeline::trace_parent::TraceParent;
use crate::telemetry::RateLimited;

/// Spans that wait or are on their way at most.
const QUEUE: usize = 2_048;
/// Spans in one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// One request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are looked at.
const MAX_ANSWER: u64 = 64 * 1024;
/// Failures that are told in the log.
static COMPLAINTS: RateLimited = RateLimited::new(1, Duration::from_secs(60));

/// Where spans go, and who sends them.
#[derive(Clone, Debug)]
pub struct CollectorSettings {
    /// The collector's base address; `/v1/traces` is appended.
    pub endpoint: SecretUrl,
    /// Name of this instance.
    pub instance: String,
}

/// Why there is no way to the collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The library refuses the address, or a variable that it reads itself.
    #[error("spans cannot be exported (telemetry.otlp_endpoint and variables OTEL_EXPORTER_OTLP_*): {0}")]
    Refused(String),
}

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Collector {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    load: Arc<Load>,
}

/// What waits or is on its way, and what became of the rest.
#[derive(Debug)]
struct Load {
    waiting: AtomicUsize,
    exported: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

impl Collector {
    pub(super) fn new(settings: &CollectorSettings, metrics: &Metrics) -> Result<Self, CollectorError> {
        let base = settings.endpoint.reveal().trim_end_matches('/');
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Poster { agent: http_client::agent(TIMEOUT) })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{base}/v1/traces"))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(refused)?;
        let count = |result| metrics.spans.with_label_values(&[result]);
        let load = Arc::new(Load {
            waiting: AtomicUsize::new(0),
            exported: count("exported"),
            failed: count("failed"),
            dropped: count("dropped"),
        });
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let exporter = Counted { inner: exporter, load: Arc::clone(&load) };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            // Whether a trace is recorded was decided where it began.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource(&settings.instance))
            .build();
        let tracer = provider.tracer("dashstream");
        Ok(Self { provider, tracer, load })
    }

    /// Queues a span, unless its trace is not recorded or there is no room.
    pub(super) fn tell(&self, parent: Option<TraceParent>, span: impl FnOnce() -> Span) {
        if parent.is_some_and(|parent| !parent.sampled) || !self.load.take_place() {
            return;
        }
        let Span { name, kind, start, end, status, attributes } = span();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(start).with_attributes(attributes);
        let context =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(remote(parent)));
        let mut span = self.tracer.build_with_context(builder, &context);
        span.set_status(status);
        span.end_with_timestamp(end);
    }

    /// See [`super::Spans::finish`].
    pub(super) async fn finish(&self, patience: Duration) {
        let (done, finished) = tokio::sync::oneshot::channel();
        let provider = self.provider.clone();
        // A thread that nobody joins: a collector that hangs must not hold the end of the process.
        let ending = std::thread::Builder::new().name("spans-end".into()).spawn(move || {
            let _ = provider.shutdown_with_timeout(patience);
            let _ = done.send(());
        });
        let in_time = ending.is_ok() && tokio::time::timeout(patience, finished).await.is_ok();
        let left = self.load.waiting.load(Ordering::Acquire);
        if !in_time || left > 0 {
            tracing::warn!(spans = left, "spans that were not exported");
        }
    }
}

fn refused(error: ExporterBuildError) -> CollectorError {
    CollectorError::Refused(match error {
        // The address itself may hold a password.
        ExporterBuildError::InvalidUri(_, reason) => reason,
        // This build has none; which one was asked for makes no difference.
        ExporterBuildError::UnsupportedCompressionAlgorithm(_) => {
            "OTEL_EXPORTER_OTLP_COMPRESSION and OTEL_EXPORTER_OTLP_TRACES_COMPRESSION must not be set: spans are sent \
             as they are"
                .to_owned()
        }
        other => other.to_string(),
    })
}

fn remote(parent: TraceParent) -> SpanContext {
    let (trace, span) = (TraceId::from(parent.trace), SpanId::from(parent.span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

fn resource(instance: &str) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "dashstream"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build()
}

impl Load {
    /// Takes a place in the queue, which is as long as the library's: that one never has to drop a span uncounted.
    fn take_place(&self) -> bool {
        let room = |waiting: usize| (waiting < QUEUE).then_some(waiting + 1);
        let taken = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok();
        if !taken {
            self.dropped.inc();
        }
        taken
    }

    fn sent(&self, spans: usize, result: &OTelSdkResult) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        match result {
            Ok(()) => self.exported.inc_by(spans as u64),
            Err(error) => {
                self.failed.inc_by(spans as u64);
                if let Some(suppressed) = COMPLAINTS.admit() {
                    tracing::warn!(%error, spans, suppressed, "the collector takes no spans");
                }
            }
        }
    }
}

/// The exporter of the library, and what it does to the load.
#[derive(Debug)]
struct Counted {
    inner: SpanExporter,
    load: Arc<Load>,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.load.sent(spans, &result);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Posts batches from the thread of the library that sends them: it may wait there.
#[derive(Debug)]
struct Poster {
    agent: ureq::Agent,
}

#[async_trait::async_trait]
impl HttpClient for Poster {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(parts, &*body))?;
        let (parts, mut body) = response.into_parts();
        let answer = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, answer.into()))
    }
}
