//! `ClientSession`: the control plane of one browser: hello, resume, applied reports, heartbeat, close.
//!
//! Data never passes through this actor: while a client does not read, actix polls neither its mailbox nor its timers. The
//! data plane is the [`SessionQueue`], which also carries every control frame, in order with the data. The session ends
//! with its connection and is never restarted; the browser comes back with its cursor.

mod beginning;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, SpawnHandle, StreamHandler};
use actix_http::ws::Item;
use actix_web_actors::ws::{self, WebsocketContext};

use super::heartbeat::HeartbeatSource;
use super::link::Link;
use super::session_queue::{QueueLimits, SessionQueue};
use super::tiers::LogTimes;
use crate::board::Board;
use crate::messages::Leave;
use crate::metrics::Metrics;
use crate::wire::close_code::CloseCode;
use crate::wire::control::{self, ClientFrame, Dialect, ErrorCode, FrameError};
use crate::wire::ws_frame;

/// Bad control frames in a row that end a session.
const MAX_BAD_FRAMES: u32 = 10;
/// Control frames per second that a session takes.
const MAX_FRAMES_PER_SECOND: u32 = 100;
/// Resumes that a session may ask for within the window.
const MAX_RESUMES: usize = 20;
const RESUME_WINDOW: Duration = Duration::from_secs(10);
/// How long v1 waits for a `resume` before it goes live.
const V1_RESUME_WAIT: Duration = Duration::from_secs(1);
/// How often a session looks whether the positions of the log have become known.
const READY_POLL: Duration = Duration::from_millis(50);
/// How long a cursor beyond the known end of the log may wait for the log to be read that far.
const AHEAD_WAIT: Duration = Duration::from_secs(1);

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
    /// The heartbeat frame.
    pub heartbeat: HeartbeatSource,
    /// Under which name clients keep their cursor, from the name of the epoch.
    pub resume_namespace: fn(topic: &str, epoch: &str) -> String,
}

/// The actor.
#[derive(Debug)]
pub struct ClientSession {
    shared: Arc<SessionShared>,
    queue: Arc<SessionQueue>,
    last_heard: Instant,
    bad_frames: u32,
    second: (Instant, u32),
    begun: bool,
    waiting: Option<SpawnHandle>,
    /// Resumes of late, against storms.
    resumes: VecDeque<Instant>,
    /// Parts of a fragmented text message; `None` while the message under way was refused.
    fragments: Option<Vec<u8>>,
    close_reason: CloseCode,
}

impl ClientSession {
    /// A session around a registered queue.
    pub fn new(shared: Arc<SessionShared>, queue: Arc<SessionQueue>) -> Self {
        let now = queue.info.opened;
        Self {
            shared,
            queue,
            last_heard: now,
            bad_frames: 0,
            second: (now, 0),
            begun: false,
            waiting: None,
            resumes: VecDeque::new(),
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
        self.queue.control(ws_frame::text(&error.to_json()), Instant::now());
        self.bad_frames += 1;
        if self.bad_frames >= MAX_BAD_FRAMES {
            self.close(CloseCode::PolicyViolation);
        }
    }

    /// Whether this second's budget of control frames is used up.
    fn over_rate(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        self.second.1 += 1;
        self.second.1 > MAX_FRAMES_PER_SECOND
    }

    /// A resume costs reads of history: whether this client asks too often.
    fn resumes_too_often(&mut self, now: Instant) -> bool {
        while self.resumes.front().is_some_and(|at| now.saturating_duration_since(*at) >= RESUME_WINDOW) {
            self.resumes.pop_front();
        }
        if self.resumes.len() >= MAX_RESUMES {
            return true;
        }
        self.resumes.push_back(now);
        false
    }

    fn text(&mut self, text: &str, ctx: &mut WebsocketContext<Self>) {
        let now = Instant::now();
        self.last_heard = now;
        if self.over_rate(now) {
            let message = format!("more than {MAX_FRAMES_PER_SECOND} control frames in a second");
            self.refuse(&FrameError::new(ErrorCode::RateLimited, message));
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
            ClientFrame::Ping => {
                self.queue.control(ws_frame::text(control::PONG), now);
            }
            ClientFrame::Pong => {}
            ClientFrame::Hello(resume) | ClientFrame::Resume(resume) => {
                self.shared.metrics.resume_requests.with_label_values(&["partition"]).inc();
                if self.resumes_too_often(now) {
                    let message = format!("more than {MAX_RESUMES} resumes within {} s", RESUME_WINDOW.as_secs());
                    self.refuse(&FrameError::new(ErrorCode::RateLimited, message));
                } else {
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

    fn beat(&mut self, ctx: &mut WebsocketContext<Self>) {
        let now = Instant::now();
        if now.saturating_duration_since(self.last_heard) >= self.shared.settings.idle_timeout {
            self.close(CloseCode::IdleTimeout);
            return;
        }
        // Browsers answer a protocol ping by themselves: it proves the connection in both dialects.
        ctx.ping(b"");
        if self.queue.info.dialect == Dialect::V2 && self.begun {
            self.queue.control(self.shared.heartbeat.frame(now), now);
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
        if stopping != CloseCode::SlowClient {
            self.shared.metrics.sessions_closed.with_label_values(&[stopping.name()]).inc();
        }
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
