//! `ClientSession`: the control plane of one browser: hello, resume, applied reports, heartbeat, close.
//!
//! Data never passes through this actor: while a client does not read, actix polls neither its mailbox nor its timers. The
//! data plane is the [`SessionQueue`], which also carries every control frame, in order with the data. The session ends
//! with its connection and is never restarted; the browser comes back with its cursor.

mod beginning;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, SpawnHandle, StreamHandler};
use actix_http::ws::Item;
use actix_web_actors::ws::{self, WebsocketContext};
use bytes::Bytes;

use super::heartbeat::HeartbeatSource;
use super::link::Link;
use super::session_queue::{QueueLimits, SessionQueue};
use super::tiers::LogTimes;
use crate::board::Board;
use crate::messages::Leave;
use crate::metrics::Metrics;
use crate::pipeline::allowance::Allowance;
use crate::pipeline::filter::{Filter, Grant};
use crate::pipeline::tags::Reading;
use crate::spans::Spans;
use crate::wire::close_code::CloseCode;
use crate::wire::control::{self, Begin, ClientFrame, Dialect, ErrorCode, FrameError};
use crate::wire::filter::FilterChange;
use crate::wire::ws_frame;

/// Bad control frames in a row that end a session.
const MAX_BAD_FRAMES: u32 = 10;
/// Control frames that a session takes.
const MAX_FRAMES: (u32, Duration) = (100, Duration::from_secs(1));
/// Resumes that it takes: each costs reads of history.
const MAX_RESUMES: (u32, Duration) = (20, Duration::from_secs(10));
/// Changes of its filter that it takes: each may cost a look at every chunk that is kept.
const MAX_FILTERS: (u32, Duration) = (10, Duration::from_secs(10));
/// The longest that a timer is set for.
const LONGEST_TIMER: Duration = Duration::from_secs(24 * 3600);
/// How long v1 waits for a `resume` before it goes live.
const V1_RESUME_WAIT: Duration = Duration::from_secs(1);
/// How often a session looks whether the positions of the log have become known.
const READY_POLL: Duration = Duration::from_millis(50);
/// How long a client waits that knows a partition which is not known here, before it begins without: the topic is looked at
/// every second, unless configured, and a new partition has to be opened.
const GROWN_WAIT: Duration = Duration::from_secs(3);
/// How long a cursor of another log may wait until Kafka has said that this instance reads the newest one. The topic is looked
/// at every second, unless configured.
const ANEW_WAIT: Duration = Duration::from_secs(3);
/// How long a cursor may wait that names a reset by hand of which this instance has not heard.
const RESET_WAIT: Duration = Duration::from_secs(3);

/// Deadlines and limits.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Interval of heartbeats.
    pub heartbeat: Duration,
    /// A client that is silent for longer is closed.
    pub idle_timeout: Duration,
    /// v2: time for the first `hello`.
    pub hello_timeout: Duration,
    /// How long a resume waits for the positions of the log.
    pub ready_timeout: Duration,
    /// Bytes of a control frame.
    pub max_control_bytes: usize,
    /// Bounds of a session's queue.
    pub queue: QueueLimits,
    /// How filters read records.
    pub reading: Reading,
    /// The topic, for `welcome`.
    pub topic: String,
}

/// What all sessions share.
#[derive(Debug)]
pub struct SessionShared {
    /// Deadlines and limits.
    pub settings: SessionSettings,
    /// The positions.
    pub board: Board,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where ended sessions are reported.
    pub leave: Link<Leave>,
    /// Where a time begins in the log.
    pub times: Arc<dyn LogTimes>,
    /// Where a resume is told that could not begin in time.
    pub spans: Spans,
    /// The heartbeat frame.
    pub heartbeat: HeartbeatSource,
    /// Under which name clients keep their cursor, from the name of the epoch.
    pub resume_namespace: fn(topic: &str, epoch: &str) -> String,
}

/// Who the session is for.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// What they may see.
    pub grant: Grant,
    /// When they have to show another token.
    pub expires: Option<Instant>,
}

/// The actor.
#[derive(Debug)]
pub struct ClientSession {
    shared: Arc<SessionShared>,
    queue: Arc<SessionQueue>,
    /// What the client may see.
    grant: Grant,
    /// When its token ends.
    expires: Option<Instant>,
    last_heard: Instant,
    bad_frames: u32,
    control_frames: Allowance,
    filters: Allowance,
    begun: bool,
    waiting: Option<SpawnHandle>,
    resumes: Allowance,
    /// Parts of a fragmented text message; `None` while the message under way was refused.
    fragments: Option<Vec<u8>>,
    close_reason: CloseCode,
}

impl ClientSession {
    /// A session around a registered queue.
    pub fn new(shared: Arc<SessionShared>, queue: Arc<SessionQueue>, visitor: Visitor) -> Self {
        let Visitor { grant, expires } = visitor;
        let now = queue.info.opened;
        queue.set_filter(Filter::new(None, &grant, shared.settings.reading), false, now);
        Self {
            shared,
            queue,
            grant,
            expires,
            last_heard: now,
            bad_frames: 0,
            control_frames: Allowance::new(MAX_FRAMES, now),
            filters: Allowance::new(MAX_FILTERS, now),
            begun: false,
            waiting: None,
            resumes: Allowance::new(MAX_RESUMES, now),
            fragments: None,
            close_reason: CloseCode::Normal,
        }
    }

    /// Ends the session: the close frame goes out after what is queued. The actor stays until the client has answered it;
    /// the stream around it gives up a client that does not.
    fn close(&mut self, code: CloseCode) {
        self.close_reason = code;
        self.queue.close(code, Instant::now());
    }

    fn refuse(&mut self, error: &FrameError) {
        self.shared.metrics.control_parse_failures.inc();
        self.queue.answer(ws_frame::text(&error.to_json()), Instant::now());
        self.bad_frames += 1;
        if self.bad_frames >= MAX_BAD_FRAMES {
            self.close(CloseCode::PolicyViolation);
        }
    }

    /// Whether the client did something more often than it may; it is told then.
    fn too_often(
        &mut self,
        what: fn(&mut Self) -> &mut Allowance,
        (times, period): (u32, Duration),
        name: &str,
        now: Instant,
    ) -> bool {
        let exceeded = what(self).exceeded(now);
        if exceeded {
            let message = format!("more than {times} {name} within {} s", period.as_secs());
            self.refuse(&FrameError::new(ErrorCode::RateLimited, message));
        }
        exceeded
    }

    fn text(&mut self, text: &str, ctx: &mut WebsocketContext<Self>) {
        let now = Instant::now();
        self.last_heard = now;
        if self.too_often(|session| &mut session.control_frames, MAX_FRAMES, "control frames", now) {
            return;
        }
        match control::parse(text, self.queue.info.dialect) {
            Ok(frame) => {
                self.bad_frames = 0;
                self.frame(frame, now, ctx);
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn frame(&mut self, frame: ClientFrame, now: Instant, ctx: &mut WebsocketContext<Self>) {
        match frame {
            ClientFrame::Ping => self.queue.answer(ws_frame::text(control::PONG), now),
            ClientFrame::Pong => {}
            ClientFrame::Filter(change) => {
                if !self.too_often(|session| &mut session.filters, MAX_FILTERS, "filters", now) {
                    self.refilter(&change, true, now);
                }
            }
            ClientFrame::Hello(resume) | ClientFrame::Resume(resume) => {
                let mode = if resume.threads.is_some() { "thread" } else { "partition" };
                self.shared.metrics.resume_requests.with_label_values(&[mode]).inc();
                if !self.too_often(|session| &mut session.resumes, MAX_RESUMES, "resumes", now) {
                    if let Some(client) = &resume.client {
                        self.queue.set_client(client);
                    }
                    self.begin_when_ready(resume, now, ctx);
                }
            }
            ClientFrame::Applied(offsets) => {
                if let Some((messages, age)) = self.queue.applied(&offsets, now) {
                    self.shared.metrics.apply_lag_messages_reported.observe(messages as f64);
                    self.shared.metrics.apply_lag_seconds_reported.observe(age.as_secs_f64());
                }
            }
        }
    }

    /// Closes the session when its token ends. A timer has to be set again now and then, since tokens may last longer.
    fn expire_in_time(&mut self, ctx: &mut WebsocketContext<Self>) {
        let Some(expires) = self.expires else { return };
        let left = expires.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.close(CloseCode::TokenExpired);
        } else {
            ctx.run_later(left.min(LONGEST_TIMER), Self::expire_in_time);
        }
    }

    fn beat(&mut self, ctx: &mut WebsocketContext<Self>) {
        let now = Instant::now();
        if now.saturating_duration_since(self.last_heard) >= self.shared.settings.idle_timeout {
            self.close(CloseCode::IdleTimeout);
            return;
        }
        // Browsers answer a protocol ping by themselves: it proves the connection in both dialects.
        ctx.ping(b"");
        if self.queue.info.dialect == Dialect::V2 && self.begun {
            self.queue.tell_withheld(now);
            self.queue.mention(self.heartbeat(None, now), now);
        }
    }

    /// `starts` are the session's positions when it does not stand at them yet.
    fn heartbeat(&self, starts: Option<&[Begin]>, now: Instant) -> Bytes {
        if !self.grant.is_restricted() {
            return self.shared.heartbeat.frame(now);
        }
        let begins = |starts: &[Begin]| starts.iter().map(|begin| (begin.partition, begin.from)).collect();
        let ends = starts.map_or_else(|| self.queue.told_ends(), begins);
        self.shared.heartbeat.restricted(&ends, now)
    }

    /// What the client wants, within what it may see.
    fn refilter(&self, change: &FilterChange, announce: bool, now: Instant) {
        if let FilterChange::Set(request) = change {
            let filter = Filter::new(request.as_ref(), &self.grant, self.shared.settings.reading);
            self.queue.set_filter(filter, announce, now);
        }
    }

    fn oversized(&mut self) {
        self.shared.metrics.control_oversized.inc();
        self.close(CloseCode::TooLarge);
    }

    fn continuation(&mut self, item: Item, ctx: &mut WebsocketContext<Self>) {
        let (part, last) = match item {
            Item::FirstText(part) => {
                self.fragments = Some(Vec::new());
                (part, false)
            }
            Item::Continue(part) => (part, false),
            Item::Last(part) => (part, true),
            Item::FirstBinary(_) => {
                self.fragments = None;
                self.binary();
                return;
            }
        };
        // What follows a refused part was answered with it.
        let Some(fragments) = &mut self.fragments else { return };
        if fragments.len() + part.len() > self.shared.settings.max_control_bytes {
            self.fragments = None;
            self.oversized();
            return;
        }
        fragments.extend_from_slice(&part);
        if last && let Some(whole) = self.fragments.take() {
            match String::from_utf8(whole) {
                Ok(text) => self.text(&text, ctx),
                Err(_) => self.refuse(&FrameError::new(ErrorCode::InvalidJson, "the text is not UTF-8")),
            }
        }
    }

    fn binary(&mut self) {
        self.last_heard = Instant::now();
        self.refuse(&FrameError::new(ErrorCode::Unsupported, "clients send text frames only"));
    }
}

impl Actor for ClientSession {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.shared.settings.heartbeat, Self::beat);
        self.expire_in_time(ctx);
        match self.queue.info.dialect {
            Dialect::V1 => self.begin_v1_later(ctx),
            Dialect::V2 => {
                ctx.run_later(self.shared.settings.hello_timeout, |session, _| {
                    if !session.begun && session.waiting.is_none() {
                        session.close(CloseCode::HelloTimeout);
                    }
                });
            }
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        let now = Instant::now();
        let reason = if std::thread::panicking() { CloseCode::Internal } else { self.close_reason };
        let said = self.queue.close_code();
        if said.is_none() && self.queue.snapshot(now).queued_bytes > 0 {
            // The client is gone, or its connection broke, with something left to send.
            self.shared.metrics.send_failed.inc();
        }
        let stopping = said.unwrap_or(reason);
        self.queue.close(stopping, now);
        self.shared.metrics.sessions_closed.with_label_values(&[stopping.name()]).inc();
        self.shared.leave.send(Leave { session: self.queue.info.session });
        tracing::debug!(
            session = self.queue.info.session,
            reason = stopping.name(),
            seconds = self.queue.info.opened.elapsed().as_secs(),
            "session ended"
        );
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for ClientSession {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => self.text(&text, ctx),
            Ok(ws::Message::Binary(_)) => self.binary(),
            Ok(ws::Message::Continuation(item)) => self.continuation(item, ctx),
            Ok(ws::Message::Ping(payload)) => {
                self.last_heard = Instant::now();
                ctx.pong(&payload);
            }
            Ok(ws::Message::Pong(_)) => self.last_heard = Instant::now(),
            Ok(ws::Message::Close(_)) => {
                // It has said its last word: ours goes out, and that is the end.
                self.close(CloseCode::Normal);
                ctx.stop();
            }
            Ok(ws::Message::Nop) => {}
            // The gate has let the frame pass, so it is its text.
            Err(ws::ProtocolError::Io(_)) => {
                self.last_heard = Instant::now();
                self.refuse(&FrameError::new(ErrorCode::InvalidJson, "the text is not UTF-8"));
            }
            Err(error) => {
                tracing::debug!(session = self.queue.info.session, %error, "client broke the protocol");
                self.close(CloseCode::ProtocolError);
                ctx.stop();
            }
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
