// What to ask of the service: with the first frame of a connection, and on an open one. Pure: clock and chance are
// arguments.
//
// At most one question is open at a time, for the service drops its answer to an older one. A replay in parts is asked
// on only when everything that was sent is applied, and never in a tight loop.

import type { Cursor, Place, Start } from "../wire/hello";
import { retryDelayMs } from "./backoff";
import type { Mode } from "./events";

/** The service takes 20 questions of a session in 10 s. */
const PACE_MS = 600;

/** Refusals that end by themselves. */
const TRANSIENT = new Set(["not_ready", "rate_limited"]);

export interface Ask {
  mode: Mode;
  start: Start;
}

/** What somebody wants to see instead of what comes by itself. */
export interface Wish {
  mode: "jump" | "history";
  start: Place;
}

export type Refusal =
  /** It is asked again at this time, by itself. */
  | { action: "wait"; untilMs: number }
  /** What was wished for is not to be had; the stream goes on as it was. */
  | { action: "forget" }
  /** The stream cannot begin or go on. */
  | { action: "reconnect" }
  /** It concerns no question. */
  | { action: "none" };

export class Asking {
  /** In doubt when what was refused may be the question, or the replay before it. */
  #open: { ask: Ask; sinceMs: number; isInDoubt: boolean } | null = null;
  #wish: Wish | null = null;
  /** The service sends nothing more until it is asked. */
  #isParked = false;
  #dueMs = Number.NEGATIVE_INFINITY;
  #askedMs = Number.NEGATIVE_INFINITY;
  #attempt = 0;
  #moved = false;

  /** Since when a question waits for its welcome; null when none does. */
  get openSinceMs(): number | null {
    return this.#open === null || this.#open.isInDoubt ? null : this.#open.sinceMs;
  }

  /** Waits in a row without anything new. */
  get attempt(): number {
    return this.#attempt;
  }

  /** From now on this is asked for, instead of what was wished for before. */
  wish(wish: Wish): void {
    this.#wish = wish;
    this.askNow();
  }

  /** Ends a wait. */
  askNow(): void {
    this.#dueMs = Number.NEGATIVE_INFINITY;
  }

  /** A connection begins: what the first frame asks for. */
  hello(cursor: Cursor | null): Ask {
    this.#open = null;
    this.#isParked = false;
    const byItself: Ask =
      cursor === null
        ? { mode: "first", start: { from: "latest" } }
        : { mode: "resume", start: { from: "cursor", cursor } };
    return this.#wish ?? byItself;
  }

  /** What to ask now on an open connection, or null. */
  next(nowMs: number, cursorNow: () => Cursor | null): Ask | null {
    if (this.openSinceMs !== null || nowMs < this.#dueMs) {
      return null;
    }
    if (this.#wish !== null) {
      return this.#wish;
    }
    const cursor = this.#isParked ? cursorNow() : null;
    return cursor === null ? null : { mode: "on", start: { from: "cursor", cursor } };
  }

  sent(ask: Ask, nowMs: number): void {
    this.#open = { ask, sinceMs: nowMs, isInDoubt: false };
    this.#askedMs = nowMs;
    this.#moved = false;
  }

  /** The service begins anew. Returns what it answers; null when nothing was asked. */
  welcomed(): Ask | null {
    const ask = this.#open?.ask ?? null;
    if (ask !== null) {
      this.#open = null;
      this.#isParked = false;
      this.#wish = this.#wish === ask ? null : this.#wish;
    }
    return ask;
  }

  /** Something was applied. */
  applied(): void {
    this.#moved = true;
  }

  /** The replay is over, or as far as the service goes at a time. `random` in [0, 1). */
  completed(capped: boolean, nowMs: number, random: number): void {
    // The end of a replay that another question has replaced, or of one that ran out of time and was said to.
    if (this.#open !== null || this.#isParked) {
      return;
    }
    this.#isParked = capped;
    if (!capped) {
      this.#attempt = 0;
    } else if (this.#moved) {
      this.#attempt = 0;
      this.#dueMs = this.#askedMs + PACE_MS;
    } else {
      this.#backOff(nowMs, random);
    }
  }

  /** The service refused a question, or could not go on with its answer. `random` in [0, 1). */
  refused(code: string, nowMs: number, random: number): Refusal {
    if (code === "replay_timeout") {
      if (this.#open === null) {
        this.#isParked = true;
      } else {
        this.#open.isInDoubt = true;
      }
      return { action: "wait", untilMs: this.#backOff(nowMs, random) };
    }
    const asked = this.#open?.ask ?? null;
    if (asked === null) {
      return { action: "none" };
    }
    this.#open = null;
    if (TRANSIENT.has(code)) {
      return { action: "wait", untilMs: this.#backOff(nowMs, random) };
    }
    if (asked !== this.#wish) {
      return { action: "reconnect" };
    }
    this.#wish = null;
    return { action: "forget" };
  }

  #backOff(nowMs: number, random: number): number {
    this.#attempt = this.#moved ? 1 : this.#attempt + 1;
    this.#dueMs = nowMs + retryDelayMs(this.#attempt, random);
    return this.#dueMs;
  }
}
