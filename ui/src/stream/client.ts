// The v2 client: keeps one session open for as long as the page lives.
//
// A thin shell around pure parts (asking, session, positions, progress, backoff, liveness, inbox). Each attempt has a
// connection, a session and an inbox of its own, so that work of an older one finds nothing to change. Knows nothing of
// React or of what is drawn.

import { parseControl, type ServerFrame } from "../wire/control";
import type { DecodedFrame, FrameFailure } from "../wire/frame";
import { buildHello, buildResume, type Place } from "../wire/hello";
import { About } from "./about";
import { Asking } from "./asking";
import { CLOSE, onClose } from "./backoff";
import { Connection } from "./connection";
import type { Environment, Timer } from "./environment";
import type { ConnectionStatus, NoticeTopic, StreamEvent } from "./events";
import { Intake } from "./intake";
import { judge } from "./liveness";
import { Positions } from "./positions";
import { Recorder } from "./recorder";
import { Retry } from "./retry";
import { Breaches, Session } from "./session";

const TICK_MS = 500;
const STABLE_MS = 3_000;
/** All pages of a service that restarts come back within this time, not at once. */
const SPREAD_MS = 1_500;

export class StreamClient {
  readonly #env: Environment;
  readonly #emit: (event: StreamEvent) => void;
  readonly #intake: Intake;
  readonly #recorder: Recorder;
  readonly #about: About;
  readonly #retries: Retry;
  readonly #positions = new Positions();
  readonly #breaches = new Breaches();
  readonly #asking = new Asking();
  #status: ConnectionStatus = { state: "connecting", attempt: 0 };
  #connection: Connection | null = null;
  #session: Session | null = null;
  #resting: "live" | "catching_up" = "catching_up";
  #isDisposed = false;
  #ticker: Timer | null = null;
  #times = { openedMs: 0, heardMs: 0, sentMs: 0, progressMs: 0 };

  constructor(env: Environment, emit: (event: StreamEvent) => void) {
    this.#env = env;
    this.#emit = emit;
    this.#about = new About(env, emit);
    // A session takes reports of its own stream only.
    const send = (report: string) => this.#asking.openSinceMs === null && this.#send(report);
    this.#recorder = new Recorder(env, this.#positions, send);
    this.#retries = new Retry(env);
    this.#intake = new Intake((events) => env.createDecoder(events), {
      ready: () => this.#drain(),
      lost: (reason) => this.#fail(CLOSE.stalled, "decoder", reason),
    });
  }

  /** Finds the stored cursor and connects. Call once. */
  async start(): Promise<void> {
    this.#setStatus({ state: "connecting", attempt: 0 });
    const version = await this.#about.ask();
    const warning = this.#recorder.load(version?.namespace ?? null);
    if (warning !== null) {
      this.#notice("warning", "storage", warning);
    }
    if (!this.#isDisposed) {
      this.#connect();
      this.#tick();
    }
  }

  /** Ends the client for good. */
  dispose(): void {
    this.#isDisposed = true;
    this.flush();
    this.#leave(CLOSE.normal);
    this.#retries.cancel();
    if (this.#ticker !== null) {
      this.#env.clearTimer(this.#ticker);
    }
    this.#intake.dispose();
  }

  /** Reports and stores what is applied now; for the moment before the page goes away. */
  flush(): void {
    this.#recorder.flush();
  }

  /** Ends a wait or a stop. Does nothing while all is well. */
  retryNow(): void {
    if (this.#status.state === "parked") {
      this.#asking.askNow();
      this.#ask();
    } else if (this.#status.state === "waiting" || this.#status.state === "stopped") {
      this.#retries.cancel();
      this.#connect();
    }
  }

  /** Begins anew at this place: shows history up to what is live, or leaves what is missing behind. */
  goTo(place: Place): void {
    const isHistory = place.from !== "latest";
    this.#asking.wish({ mode: isHistory ? "history" : "jump", start: place });
    this.#emit({ type: "wish", history: isHistory ? place : null });
    this.retryNow();
    this.#ask();
  }

  /** Asks what is to be asked now on an open session. */
  #ask(): void {
    const now = this.#env.now();
    const ask = this.#session?.welcome == null ? null : this.#asking.next(now, () => this.#positions.cursor());
    if (ask !== null && this.#send(buildResume(ask.start))) {
      this.#asking.sent(ask, now);
      this.#setStatus({ state: "catching_up" });
    }
  }

  #connect(): void {
    this.#leave(null);
    this.#about.askAgain();
    this.#setStatus({ state: "connecting", attempt: this.#retries.attempt });
    const now = this.#env.now();
    this.#times = { openedMs: now, heardMs: now, sentMs: now, progressMs: now };
    this.#session = new Session(this.#positions, this.#breaches, this.#emit);
    try {
      this.#connection = new Connection(() => this.#env.openSocket(), {
        opened: () => this.#sayHello(),
        text: (text) => this.#onText(text),
        binary: (bytes) => this.#onBinary(bytes),
        closed: (code, reason) => this.#onClose(code, reason),
        unusable: (reason) => this.#stop(reason),
      });
    } catch {
      this.#retry("the browser refused to open a connection");
    }
  }

  #sayHello(): void {
    const ask = this.#asking.hello(this.#positions.cursor());
    this.#asking.sent(ask, this.#env.now());
    this.#send(buildHello(ask.start));
  }

  /** Ends the present attempt. What it has not applied comes again in the next one. */
  #leave(closeCode: number | null): void {
    if (closeCode !== null) {
      this.#connection?.drop(closeCode);
    }
    this.#connection = null;
    this.#session = null;
    this.#intake.clear();
  }

  #onText(text: string): void {
    this.#times.heardMs = this.#env.now();
    const parsed = parseControl(text);
    if (!parsed.ok) {
      this.#fail(CLOSE.violation, "protocol", parsed.message);
    } else if (parsed.frame !== null) {
      this.#onControl(parsed.frame);
    }
  }

  #onControl(frame: ServerFrame): void {
    if (frame.type === "heartbeat") {
      // Only a session that lasts lets the backoff begin anew.
      if (this.#env.now() - this.#times.openedMs >= STABLE_MS) {
        this.#retries.settle();
      }
      this.#emit({ type: "heartbeat", heartbeat: frame });
    } else if (frame.type !== "pong") {
      this.#intake.control(frame);
    }
  }

  #onBinary(frame: ArrayBuffer): void {
    const now = this.#env.now();
    this.#times.heardMs = now;
    if (this.#intake.length === 0) {
      this.#times.progressMs = now;
    }
    if (!this.#intake.frame(frame, now)) {
      this.#fail(CLOSE.stalled, "decoder", "this page fell too far behind and starts over from its position");
    }
  }

  /** Applies everything that is ready, in the order in which it arrived. */
  #drain(): void {
    const session = this.#session;
    while (session !== null) {
      const ready = this.#intake.take();
      if (ready === null) {
        break;
      }
      this.#times.progressMs = this.#env.now();
      const fault =
        ready.type === "control"
          ? this.#applyControl(session, ready.frame)
          : this.#applyData(session, ready.result, ready.arrivedMs);
      if (fault !== null) {
        this.#fail(CLOSE.violation, "protocol", fault);
        return;
      }
    }
    this.#recorder.reportWhenDue();
    this.#ask();
  }

  #applyControl(session: Session, frame: ServerFrame): string | null {
    if (frame.type === "error") {
      this.#onRefusal(session, frame.code, frame.message);
      return null;
    }
    const asked = frame.type === "welcome" ? this.#asking.welcomed() : null;
    const fault = frame.type === "welcome" ? session.begin(frame, asked) : session.onControl(frame);
    if (session.takeDropsStorage()) {
      this.#recorder.drop();
    }
    if (fault === null && frame.type === "welcome") {
      this.#recorder.begin(frame.resumeNamespace);
      this.#rest("catching_up");
    } else if (fault === null && frame.type === "replay_complete") {
      this.#asking.completed(frame.capped, this.#env.now(), this.#env.random());
      if (!frame.capped) {
        this.#recorder.live();
        this.#rest("live");
      }
    }
    return fault;
  }

  #onRefusal(session: Session, code: string, message: string): void {
    const said = `${code} ${message}`.trim();
    const refusal = this.#asking.refused(code, this.#env.now(), this.#env.random());
    if (refusal.action === "forget") {
      this.#emit({ type: "wish", history: null });
      this.#setStatus({ state: this.#resting });
    }
    if (session.welcome === null) {
      this.#leave(CLOSE.normal);
      this.#retry(`the service did not take the hello: ${said}`);
    } else if (refusal.action === "wait") {
      const { attempt } = this.#asking;
      this.#setStatus({ state: "parked", untilMs: refusal.untilMs, attempt, reason: said });
    } else if (refusal.action === "reconnect") {
      this.#fail(CLOSE.normal, "server", `the service did not go on: ${said}`);
    } else {
      this.#notice("warning", "server", `the service refused a frame: ${said}`);
    }
  }

  #applyData(session: Session, result: DecodedFrame | FrameFailure, arrivedMs: number): string | null {
    if (!result.ok) {
      return result.message;
    }
    const fault = session.onData(result, this.#env.now() - arrivedMs);
    if (fault === null) {
      this.#asking.applied();
      this.#recorder.applied(result.partition, result.bytes);
    }
    return fault;
  }

  #onClose(code: number, reason: string): void {
    const decision = onClose(code, reason);
    this.flush();
    this.#leave(null);
    if (decision.action === "stop") {
      this.#stop(decision.reason);
    } else {
      this.#retry(decision.reason, decision.action === "retry_spread" ? SPREAD_MS : 0);
    }
  }

  /** Reports a fault and starts over from the applied position. */
  #fail(code: number, topic: NoticeTopic, text: string): void {
    if (this.#isDisposed) {
      return;
    }
    this.#notice("error", topic, text);
    this.#leave(code);
    this.#retry(text);
  }

  #stop(reason: string): void {
    this.#leave(CLOSE.normal);
    this.#setStatus({ state: "stopped", reason });
  }

  #retry(reason: string, spreadMs = 0): void {
    const untilMs = this.#retries.schedule(() => this.#connect(), spreadMs);
    this.#setStatus({ state: "waiting", untilMs, attempt: this.#retries.attempt, reason });
  }

  #tick(): void {
    this.#watch();
    this.#ask();
    this.#recorder.tick();
    const backlog = this.#intake.takeBacklog();
    if (backlog !== null) {
      this.#emit({ type: "backlog", ...backlog });
    }
    this.#ticker = this.#env.setTimer(() => this.#tick(), TICK_MS);
  }

  #watch(): void {
    if (this.#connection === null) {
      return;
    }
    const verdict = judge({
      ...this.#times,
      nowMs: this.#env.now(),
      heartbeatMs: this.#session?.welcome?.heartbeatMs ?? null,
      waiting: this.#intake.length,
      askedMs: this.#asking.openSinceMs,
    });
    if (verdict.action === "fail") {
      this.#fail(verdict.code, verdict.topic, verdict.reason);
    } else if (verdict.action === "ping") {
      this.#send(JSON.stringify({ type: "ping" }));
    }
  }

  #send(text: string): boolean {
    const isSent = this.#connection?.send(text) ?? false;
    if (isSent) {
      this.#times.sentMs = this.#env.now();
    }
    return isSent;
  }

  /** The state of the stream between questions. */
  #rest(state: "live" | "catching_up"): void {
    this.#resting = state;
    this.#setStatus({ state });
  }

  #notice(level: "warning" | "error", topic: NoticeTopic, text: string): void {
    this.#emit({ type: "notice", level, topic, text });
  }

  #setStatus(status: ConnectionStatus): void {
    this.#status = status;
    this.#emit({ type: "status", status });
  }
}
