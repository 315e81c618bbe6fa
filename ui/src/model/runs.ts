// The runs seen lately: one per tenant and thread, newest first. Bounded; the run that was quiet longest goes first.

import type { RunTouch } from "../wire/summary";

export type RunStatus = "running" | "waiting" | "completed" | "failed";

export interface Run {
  key: string;
  tenant: string;
  thread: string;
  graph: string;
  status: RunStatus;
  /** False when the page came in the middle: its start was not seen. */
  sawStart: boolean;
  node: string;
  events: number;
  errors: number;
  lastName: string;
  lastTimeMs: number | null;
}

export class Runs {
  readonly #maxRuns: number;
  // Insertion order is order of arrival: a run that is touched moves to the end.
  #runs = new Map<string, Run>();

  constructor(maxRuns: number) {
    this.#maxRuns = maxRuns;
  }

  get size(): number {
    return this.#runs.size;
  }

  clear(): void {
    this.#runs.clear();
  }

  touch(touch: RunTouch, lastName: string, lastTimeMs: number | null): void {
    const { key } = touch;
    const known = this.#runs.get(key);
    if (known !== undefined) {
      this.#runs.delete(key);
    }
    this.#runs.set(key, update(known ?? unseen(touch), touch, lastName, lastTimeMs));
    if (this.#runs.size > this.#maxRuns) {
      const oldest = this.#runs.keys().next();
      if (!oldest.done) {
        this.#runs.delete(oldest.value);
      }
    }
  }

  /** The `count` runs that were touched last, newest first. */
  latest(count: number): Run[] {
    const all = [...this.#runs.values()];
    return all.slice(Math.max(0, all.length - count)).reverse();
  }
}

function unseen(touch: RunTouch): Run {
  return {
    key: touch.key,
    tenant: touch.tenant,
    thread: touch.thread,
    graph: "",
    status: "running",
    sawStart: false,
    node: "",
    events: 0,
    errors: 0,
    lastName: "",
    lastTimeMs: null,
  };
}

function update(run: Run, touch: RunTouch, lastName: string, lastTimeMs: number | null): Run {
  // A thread may be used again: a start after the end is a new run.
  const restarted = touch.signal === "started";
  return {
    ...run,
    graph: touch.graph || run.graph,
    status: nextStatus(run.status, touch.signal),
    sawStart: run.sawStart || restarted,
    node: touch.node || (restarted ? "" : run.node),
    events: (restarted ? 0 : run.events) + touch.events,
    errors: (restarted ? 0 : run.errors) + touch.errors,
    lastName,
    lastTimeMs,
  };
}

function nextStatus(status: RunStatus, signal: RunTouch["signal"]): RunStatus {
  switch (signal) {
    case "started":
    case "resumed":
      return "running";
    case "completed":
    case "failed":
    case "waiting":
      return signal;
    default:
      return status;
  }
}
