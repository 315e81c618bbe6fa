//! How a session comes to its first position: at once, after a look-up of a time, or when the log is known.

use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, WrapFuture as _};
use actix_web_actors::ws::WebsocketContext;

use super::{ANEW_WAIT, ClientSession, GROWN_WAIT, READY_POLL, RESET_WAIT, SessionShared, V1_RESUME_WAIT};
use crate::actors::resumes::{self, Ended};
use crate::actors::session_queue::{Beginning, Request};
use crate::board::Stream;
use crate::pipeline::manual_reset::{self, NamedEpoch};
use crate::pipeline::page::TierError;
use crate::pipeline::start::{self, Known};
use crate::pipeline::threads::ThreadCursor;
use crate::spans::ResumeEnd;
use crate::wire::control::{self, Begin, Dialect, ErrorCode, FrameError, From, Resume};
use crate::wire::ws_frame;

/// Asks for the end of the log.
const NO_TIME_IS_LATER: i64 = i64::MAX;

impl ClientSession {
    /// Begins at once when the positions of the log are known; otherwise waits for them, at most the ready timeout. It
    /// never answers from a store that knows nothing yet.
    pub(super) fn begin_when_ready(&mut self, resume: Resume, since: Instant, ctx: &mut WebsocketContext<Self>) {
        if let Some(waiting) = self.waiting.take() {
            ctx.cancel_future(waiting);
        }
        let stream = self.shared.board.stream();
        let compare = |named| manual_reset::compare(named, &stream.epoch.name, stream.reset.as_deref());
        let named = resume.epoch.as_ref().map_or(NamedEpoch::Current, compare);
        let wait = |known: &[Known]| match named {
            // Another instance has learned of it first.
            NamedEpoch::AfterReset => RESET_WAIT,
            // So may it be with the log itself. A client must not be taken back to one that is over.
            NamedEpoch::Other if resume.from == From::Cursor && !self.is_confirmed(since) => ANEW_WAIT,
            _ if self.unknown(&resume, named, known).is_empty() => Duration::ZERO,
            _ => GROWN_WAIT,
        };
        match self.known(&stream) {
            Some(known) if since.elapsed() >= wait(&known) => match resume.from {
                From::Time(time) => self.ask_the_log(resume, stream, time, since, ctx),
                _ if start::is_ahead(&resume, named == NamedEpoch::Current, &known) => {
                    self.ask_the_log(resume, stream, NO_TIME_IS_LATER, since, ctx);
                }
                _ => self.begin(&resume, &stream, named, &[], &known),
            },
            None if since.elapsed() >= self.shared.settings.ready_timeout => {
                let message = "the positions of the log are not known yet; try again in a few seconds";
                self.tell(&FrameError::new(ErrorCode::NotReady, message));
            }
            _ => {
                let again = move |session: &mut Self, ctx: &mut WebsocketContext<Self>| {
                    session.waiting = None;
                    session.begin_when_ready(resume, since, ctx);
                };
                self.waiting = Some(ctx.run_later(READY_POLL, again));
            }
        }
    }

    /// Asks the log where `time` begins, then begins: there, if that was asked for, else where the client goes on.
    fn ask_the_log(
        &mut self,
        resume: Resume,
        stream: Stream,
        time: i64,
        since: Instant,
        ctx: &mut WebsocketContext<Self>,
    ) {
        let asking =
            self.shared.times.offsets_at(stream.epoch.number, time, since + self.shared.settings.ready_timeout);
        let answered = asking.into_actor(self).map(move |answer, session, ctx| {
            session.waiting = None;
            match (answer, session.known(&stream)) {
                (Ok(at), Some(known)) if session.shared.board.stream() == stream => match resume.from {
                    From::Time(_) => session.begin(&resume, &stream, NamedEpoch::Current, &at, &known),
                    _ => {
                        let known = start::with_ends(&known, &at);
                        session.begin(&resume, &stream, NamedEpoch::Current, &[], &known);
                    }
                },
                (Err(error @ (TierError::Timeout | TierError::Unavailable(_))), _) => {
                    let asked = if matches!(resume.from, From::Time(_)) { "that time begins" } else { "it ends" };
                    let message = format!("the log did not say where {asked}: {error}; try again");
                    session.tell(&FrameError::new(ErrorCode::ReplayTimeout, message));
                    session.ran_out_of_time(since);
                }
                // The log has become another one meanwhile.
                _ => session.begin_when_ready(resume, since, ctx),
            }
        });
        self.waiting = Some(ctx.spawn(answered));
    }

    fn ran_out_of_time(&self, since: Instant) {
        let ended = Ended { took: since.elapsed(), ..Ended::default() };
        let SessionShared { metrics, spans, .. } = &*self.shared;
        resumes::count(&self.queue.info, &ended, ResumeEnd::TimedOut, metrics, spans);
    }

    /// An `error` that is no fault of the client.
    pub(super) fn tell(&self, error: &FrameError) {
        self.queue.answer(ws_frame::text(&error.to_json()), Instant::now());
    }

    fn known(&self, stream: &Stream) -> Option<Vec<Known>> {
        let partitions = self.shared.board.partitions();
        if partitions.is_empty() || !self.shared.board.knows_resets() {
            return None;
        }
        partitions
            .iter()
            .filter(|partition| self.grant.shows(partition.partition))
            .map(|partition| {
                let next = partition.stored.get()?;
                let end = partition.end_at_start.get()?.max(partition.high_watermark.get().unwrap_or(0)).max(next);
                let low = partition.window_low.get()?;
                let oldest = partition.low_watermark.get().unwrap_or(low).min(low);
                let floor = stream.floor(partition.partition);
                Some(Known { partition: partition.partition, oldest, low, next, end, floor })
            })
            .collect()
    }

    /// Whether Kafka has said since then that this instance reads the newest log.
    fn is_confirmed(&self, since: Instant) -> bool {
        self.shared.board.confirmed().is_some_and(|confirmed| confirmed >= since)
    }

    /// Where the client goes on in partitions that are not known, as far as it may see them.
    fn unknown(&self, resume: &Resume, named: NamedEpoch, known: &[Known]) -> Vec<(i32, i64)> {
        let mut unknown = start::unknown(resume, named == NamedEpoch::Current, known);
        unknown.retain(|(partition, _)| self.grant.shows(*partition));
        unknown
    }

    fn begin(&mut self, resume: &Resume, stream: &Stream, named: NamedEpoch, at_time: &[(i32, i64)], known: &[Known]) {
        let start = start::decide(resume, named, at_time, known);
        let told = stream.as_told();
        let epoch = told.name.as_str();
        let mut first = Vec::new();
        if self.queue.info.dialect == Dialect::V2 {
            let settings = &self.shared.settings;
            let namespace = (self.shared.resume_namespace)(&settings.topic, epoch);
            let welcome = control::Welcome {
                session: self.queue.info.session,
                epoch,
                topic: &settings.topic,
                resume_namespace: &namespace,
                heartbeat_ms: u64::try_from(settings.heartbeat.as_millis()).unwrap_or(u64::MAX),
                idle_timeout_ms: u64::try_from(settings.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            };
            first.push(control::welcome(&welcome, &start.begins));
        }
        for (partition, reason, next) in &start.resets {
            first.push(control::cursor_reset(*partition, *reason, epoch, *next));
        }
        let mut first: Vec<_> = first.iter().map(|text| ws_frame::text(text)).collect();
        if self.queue.info.dialect == Dialect::V2 {
            // The state of the service is part of the first picture.
            first.push(self.heartbeat(Some(&start.begins), Instant::now()));
        }
        let beginning = |(begin, known): (&Begin, &Known)| Beginning {
            partition: begin.partition,
            from: begin.from,
            end: known.end,
            oldest: start.oldest.contains(&begin.partition),
        };
        let starts: Vec<_> = start.begins.iter().zip(known).map(beginning).collect();
        self.begun = true;
        self.refilter(&resume.filter, false, Instant::now());
        let request = match &resume.threads {
            Some(threads) => {
                Request::of_threads(ThreadCursor::new(threads.iter().cloned(), self.shared.settings.reading))
            }
            None => Request { later: self.unknown(resume, named, known), ..Request::new(resume.from) },
        };
        self.queue.begin(&told, &starts, Request { first, ..request }, Instant::now());
        self.queue.heed_reset(stream, &self.shared.board, Instant::now());
    }

    /// v1 without a `resume`: what arrives from the connect on. The position is taken now, the join waits a moment.
    pub(super) fn begin_v1_later(&self, ctx: &mut WebsocketContext<Self>) {
        let stream = self.shared.board.stream();
        let at_connect = self
            .known(&stream)
            .map(|known| (stream.epoch.number, known.iter().map(|known| (known.partition, known.end)).collect()));
        ctx.run_later(V1_RESUME_WAIT, move |session, ctx| session.begin_live(at_connect, ctx));
    }

    /// Goes live as soon as the log is known, however long that takes, unless the client has asked for something else.
    pub(super) fn begin_live(&mut self, at_connect: Option<(u64, Vec<(i32, i64)>)>, ctx: &mut WebsocketContext<Self>) {
        if self.begun || self.waiting.is_some() {
            return;
        }
        let stream = self.shared.board.stream();
        let Some(starts) = at_connect
            // The topic may have been made anew since.
            .filter(|(epoch, _)| *epoch == stream.epoch.number)
            .map(|(_, ends)| ends)
            .or_else(|| self.ends_at_start(&stream))
        else {
            ctx.run_later(READY_POLL, |session, ctx| session.begin_live(None, ctx));
            return;
        };
        self.begun = true;
        let beginning = |(partition, from): (i32, i64)| {
            let from = from.max(stream.floor(partition));
            Beginning { partition, from, end: from, oldest: false }
        };
        let starts: Vec<_> = starts.into_iter().map(beginning).collect();
        self.queue.begin(&stream.as_told(), &starts, None, Instant::now());
        self.queue.heed_reset(&stream, &self.shared.board, Instant::now());
    }

    /// Where the log ended when the service began to read it: for a client that came before, the first position after its
    /// connect that anybody knows.
    fn ends_at_start(&self, stream: &Stream) -> Option<Vec<(i32, i64)>> {
        self.known(stream)?;
        let partitions = self.shared.board.partitions();
        let shown = partitions.iter().filter(|partition| self.grant.shows(partition.partition));
        shown.map(|partition| Some((partition.partition, partition.end_at_start.get()?))).collect()
    }
}
