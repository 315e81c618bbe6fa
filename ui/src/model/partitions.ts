// Per partition: where the page stands, where the service stands, and what lies between.

import type { PartitionStart } from "../stream/events";

export interface PartitionState {
  partition: number;
  /** The next offset to apply. */
  next: bigint;
  /** The end of what the service has read; null until it said so. */
  end: bigint | null;
  records: number;
  /** Lost or missing offsets. */
  lost: bigint;
  resets: number;
  /** How long the last frame waited in this page before it was applied, in milliseconds; null before the first. */
  applyLagMs: number | null;
}

/** What the service has and this page has not applied. */
export interface ApplyLag {
  offsets: bigint;
  /** For how long the page has known of the oldest of them, in milliseconds. */
  ms: number;
}

/** An end of the log that was announced and is not reached. */
interface Owed {
  end: bigint;
  sinceMs: number;
}

interface Kept extends PartitionState {
  /** The oldest announcement that is not met, and the newest one. */
  owed: { oldest: Owed; newest: Owed } | null;
}

export class Partitions {
  #states = new Map<number, Kept>();

  /** Forgets everything. */
  clear(): void {
    this.#states.clear();
  }

  /** A session begins; `goesOn` where the page stands. */
  begin(starts: PartitionStart[], goesOn: boolean, nowMs: number): void {
    const listed = new Set(starts.map((start) => start.partition));
    for (const known of this.#states.keys()) {
      if (!listed.has(known)) {
        this.#states.delete(known);
      }
    }
    for (const start of starts) {
      const known = this.#states.get(start.partition);
      if (known === undefined) {
        this.add(start, nowMs);
      } else {
        known.next = goesOn ? known.next : start.from;
        known.owed = goesOn ? known.owed : null;
        announce(known, start.next, nowMs);
      }
    }
  }

  add(start: PartitionStart, nowMs: number): void {
    const state: Kept = {
      partition: start.partition,
      next: start.from,
      end: start.next,
      records: 0,
      lost: 0n,
      resets: 0,
      applyLagMs: null,
      owed: null,
    };
    announce(state, start.next, nowMs);
    this.#states.set(start.partition, state);
  }

  applied(partition: number, next: bigint, records: number, lost: bigint, waitedMs: number): void {
    const state = this.#states.get(partition);
    if (state !== undefined) {
      state.next = next;
      state.records += records;
      state.lost += lost;
      state.applyLagMs = waitedMs;
      state.end = state.end === null || state.end < next ? next : state.end;
      settle(state);
    }
  }

  /** The position moves to `next` without data, `lost` offsets of that against the user's will. */
  passOver(partition: number, next: bigint, lost: bigint): void {
    const state = this.#states.get(partition);
    if (state !== undefined) {
      state.lost += lost;
      state.next = next;
      settle(state);
    }
  }

  /** With a new epoch what was known of the end is void too. */
  reset(partition: number, nextOffset: bigint, newEpoch: boolean): void {
    const state = this.#states.get(partition);
    if (state !== undefined) {
      state.next = nextOffset;
      state.end = newEpoch || state.end === null || state.end < nextOffset ? nextOffset : state.end;
      state.owed = newEpoch ? null : state.owed;
      state.resets += 1;
      settle(state);
    }
  }

  ends(nextOffsets: ReadonlyMap<number, bigint>, nowMs: number): void {
    for (const [partition, end] of nextOffsets) {
      const state = this.#states.get(partition);
      if (state !== undefined) {
        announce(state, end, nowMs);
      }
    }
  }

  applyLag(nowMs: number): ApplyLag {
    let offsets = 0n;
    let sinceMs = nowMs;
    for (const state of this.#states.values()) {
      offsets += lagOf(state) ?? 0n;
      sinceMs = Math.min(sinceMs, state.owed?.oldest.sinceMs ?? nowMs);
    }
    return { offsets, ms: nowMs - sinceMs };
  }

  /** Copies, in the order of their numbers. */
  list(): PartitionState[] {
    return [...this.#states.values()].map((state) => ({ ...state })).sort((a, b) => a.partition - b.partition);
  }
}

/** The service says where its log ends. */
function announce(state: Kept, end: bigint, nowMs: number): void {
  state.end = end;
  if (end > state.next) {
    const newest = { end, sinceMs: nowMs };
    state.owed = { oldest: state.owed?.oldest ?? newest, newest };
  }
  settle(state);
}

/** Announcements that are met are forgotten. Between the oldest and the newest none is kept: there may be very many. */
function settle(state: Kept): void {
  const { owed, next } = state;
  if (owed !== null && next >= owed.oldest.end) {
    state.owed = next >= owed.newest.end ? null : { oldest: owed.newest, newest: owed.newest };
  }
}

/** Offsets that the service has and the page has not applied; null when the end is not known. */
export function lagOf(state: PartitionState): bigint | null {
  if (state.end === null) {
    return null;
  }
  // A heartbeat may be older than the frames that came after it.
  return state.end > state.next ? state.end - state.next : 0n;
}
