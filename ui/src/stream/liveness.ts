// Whether an open connection still lives, from times alone. Pure.

import { CLOSE } from "./backoff";
import type { NoticeTopic } from "./events";

/** The service may wait up to 30 s until it knows its own positions, and then says that it is not ready. */
const WELCOME_LIMIT_MS = 40_000;
const STALL_LIMIT_MS = 60_000;

export interface Times {
  nowMs: number;
  openedMs: number;
  /** When anything was heard of the service. */
  heardMs: number;
  /** When anything was sent to it. */
  sentMs: number;
  /** When something was applied, or began to wait. */
  progressMs: number;
  /** From the welcome; null before it. */
  heartbeatMs: number | null;
  waiting: number;
  /** Since when a question waits for its welcome; null when none does. */
  askedMs: number | null;
}

export type Verdict =
  | { action: "none" }
  | { action: "ping" }
  | { action: "fail"; code: number; topic: NoticeTopic; reason: string };

export function judge(times: Times): Verdict {
  const { nowMs, heartbeatMs } = times;
  if (heartbeatMs === null) {
    return nowMs - times.openedMs > WELCOME_LIMIT_MS
      ? { action: "fail", code: CLOSE.silence, topic: "connection", reason: "the service did not answer in time" }
      : { action: "none" };
  }
  // Before the welcome come frames of the stream that it ends.
  if (times.askedMs !== null && times.waiting === 0 && nowMs - times.askedMs > WELCOME_LIMIT_MS) {
    return { action: "fail", code: CLOSE.silence, topic: "connection", reason: "the service did not answer in time" };
  }
  if (nowMs - times.heardMs > 2 * heartbeatMs) {
    return { action: "fail", code: CLOSE.silence, topic: "connection", reason: "no heartbeat from the service" };
  }
  if (times.waiting > 0 && nowMs - times.progressMs > STALL_LIMIT_MS) {
    return { action: "fail", code: CLOSE.stalled, topic: "decoder", reason: "decoding stands still" };
  }
  return nowMs - times.sentMs > heartbeatMs ? { action: "ping" } : { action: "none" };
}
