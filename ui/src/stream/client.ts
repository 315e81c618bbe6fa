// The v2 client: keeps one session open for as long as the page lives.
//
// A thin shell around pure parts (session, positions, progress, backoff, liveness, inbox). Each attempt has a
// connection, a session and an inbox of its own, so that work of an older one finds nothing to change. Knows nothing of
// React or of what is drawn.

import { parseControl, type ServerFrame } from "../wire/control";
import type { DecodedFrame, FrameFailure } from "../wire/frame";
import { buildHello, buildResume } from "../wire/hello";
import { CLOSE, onClose } from "./backoff";
import { Connection } from "./connection";
import type { Environment, Timer } from "./environment";
import type { ConnectionStatus, NoticeTopic, StreamEvent } from "./events";
import { Intake } from "./intake";
import { Keeper } from "./keeper";
import { judge } from "./liveness";
import { Positions } from "./positions";
import { Progress } from "./progress";
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
  readonly #keeper: Keeper;
  readonly #retries: Retry;
  readonly #positions = new Positions();
  readonly #breaches = new Breaches();
  readonly #progress = new Progress();
  #status: ConnectionStatus = { state: "connecting", attempt: 0 };
  #connection: Connection | null = null;
  #session: Session | null = null;
  #jumps = false;
  #isDisposed = false;
  #ticker: Timer | null = null;
  #times = { openedMs: 0, heardMs: 0, sentMs: 0, progressMs: 0 };
  #backlog = 0;

  constructor(env: Environment, emit: (event: StreamEvent) => void) {
    this.#env = env;
    this.#emit = emit;
    this.#keeper = new Keeper(env.store);
    this.#retries = new Retry(env);
    this.#intake = new Intake((events) => env.createDecoder(events), {
      ready: () => this.#drain(),
      lost: (reason) => this.#fail(CLOSE.stalled, "decoder", reason),
    });
  }

  /** Finds the stored cursor and connects. Call once. */
  async start(): Promise<void> {
    this.#setStatus({ state: "connecting", attempt: 0 });
    const named = await this.#env.fetchNamespace().catch(() => null);
    const { cursor, warning } = this.#keeper.load(named);
    if (warning !== null) {
      this.#notice("warning", "storage", warning);
    }
    if (cursor !== null) {
      this.#positions.restore(cursor);
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
    this.#report();
    this.#save();
  }

  /** Ends a wait or a stop. Does nothing while connected. */
  retryNow(): void {
    if (this.#status.state === "waiting" || this.#status.state === "stopped") {
      this.#retries.cancel();
      this.#connect();
    }
  }

  /** Leaves what is missing behind and begins at what comes next. */
  jumpToLive(): void {
    this.#jumps = true;
    this.#leave(CLOSE.normal);
    this.#retries.cancel();
    this.#connect();
  }

  #connect(): void {
    this.#leave(null);
    this.#setStatus({ state: "connecting", attempt: this.#retries.attempt });
    const cursor = this.#positions.cursor();
    const mode = cursor === null ? "first" : this.#jumps ? "jump" : "resume";
    const now = this.#env.now();
    this.#times = { openedMs: now, heardMs: now, sentMs: now, progressMs: now };
    this.#session = new Session(this.#positions, this.#breaches, mode, this.#emit);
    try {
      this.#connection = new Connection(() => this.#env.openSocket(), {
        opened: () => this.#send(buildHello(mode === "resume" ? cursor : null)),
        text: (text) => this.#onText(text),
        binary: (bytes) => this.#onBinary(bytes),
        closed: (code, reason) => this.#onClose(code, reason),
        unusable: (reason) => this.#stop(reason),
      });
    } catch {
      this.#retry("the browser refused to open a connection");
    }
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
    switch (frame.type) {
      case "heartbeat":
        // Only a session that lasts lets the backoff begin anew.
        if (this.#env.now() - this.#times.openedMs >= STABLE_MS) {
          this.#retries.settle();
        }
        this.#emit({ type: "heartbeat", heartbeat: frame });
        return;
      case "error":
        this.#onRefusal(frame.code, frame.message);
        return;
      case "pong":
        return;
      default:
        this.#intake.control(frame);
    }
  }

  #onRefusal(code: string, message: string): void {
    if (this.#session?.welcome === null) {
      this.#leave(CLOSE.normal);
      this.#retry(`the service did not take the hello: ${code} ${message}`.trim());
    } else {
      this.#notice("warning", "server", `the service refused a frame: ${code} ${message}`.trim());
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
    this.#reportWhenDue();
  }

  #applyControl(session: Session, frame: ServerFrame): string | null {
    const fault = session.onControl(frame);
    if (session.takeDropsStorage()) {
      this.#keeper.drop();
    }
    if (fault === null && frame.type === "welcome") {
      this.#jumps = false;
      this.#keeper.enter(frame.resumeNamespace);
      this.#progress.begin();
      this.#setStatus({ state: "catching_up" });
    }
    if (fault === null && frame.type === "replay_complete") {
      this.#onReplayComplete(frame.capped);
    }
    return fault;
  }

  #onReplayComplete(capped: boolean): void {
    const cursor = this.#positions.cursor();
    if (capped && cursor !== null) {
      this.#send(buildResume(cursor));
    } else {
      this.#setStatus({ state: "live" });
    }
  }

  #applyData(session: Session, result: DecodedFrame | FrameFailure, arrivedMs: number): string | null {
    if (!result.ok) {
      return result.message;
    }
    const fault = session.onData(result, this.#env.now() - arrivedMs);
    if (fault === null) {
      const next = this.#positions.partitions.get(result.partition);
      if (next !== undefined) {
        this.#progress.applied(result.partition, next, result.bytes);
      }
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
    this.#reportWhenDue();
    if (this.#progress.isSaveDue(this.#env.now())) {
      this.#save();
    }
    const frames = this.#intake.length;
    if (frames !== this.#backlog) {
      this.#backlog = frames;
      this.#emit({ type: "backlog", frames, bytes: this.#intake.bytes });
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
    });
    if (verdict.action === "fail") {
      this.#fail(verdict.code, verdict.topic, verdict.reason);
    } else if (verdict.action === "ping") {
      this.#send(JSON.stringify({ type: "ping" }));
    }
  }

  #reportWhenDue(): void {
    if (this.#progress.isReportDue(this.#env.now())) {
      this.#report();
    }
  }

  #report(): void {
    const applied = this.#progress.report();
    if (applied !== null && this.#send(applied)) {
      this.#progress.reported(this.#env.now());
    }
  }

  #save(): void {
    const cursor = this.#positions.cursor();
    if (this.#progress.isUnsaved && cursor !== null && this.#keeper.save(cursor, this.#env.wallMs())) {
      this.#progress.saved(this.#env.now());
    }
  }

  #send(text: string): boolean {
    const isSent = this.#connection?.send(text) ?? false;
    if (isSent) {
      this.#times.sentMs = this.#env.now();
    }
    return isSent;
  }

  #notice(level: "warning" | "error", topic: NoticeTopic, text: string): void {
    this.#emit({ type: "notice", level, topic, text });
  }

  #setStatus(status: ConnectionStatus): void {
    this.#status = status;
    this.#emit({ type: "status", status });
  }
}
