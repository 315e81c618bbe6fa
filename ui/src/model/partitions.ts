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

export class Partitions {
  #states = new Map<number, PartitionState>();

  begin(starts: PartitionStart[], resumed: boolean): void {
    const listed = new Set(starts.map((start) => start.partition));
    for (const known of this.#states.keys()) {
      if (!listed.has(known)) {
        this.#states.delete(known);
      }
    }
    for (const start of starts) {
      const known = this.#states.get(start.partition);
      if (known === undefined) {
        this.add(start);
      } else {
        known.end = start.next;
        known.next = resumed ? known.next : start.from;
      }
    }
  }

  add(start: PartitionStart): void {
    this.#states.set(start.partition, {
      partition: start.partition,
      next: start.from,
      end: start.next,
      records: 0,
      lost: 0n,
      resets: 0,
      applyLagMs: null,
    });
  }

  applied(partition: number, next: bigint, records: number, lost: bigint, waitedMs: number): void {
    const state = this.#states.get(partition);
    if (state !== undefined) {
      state.next = next;
      state.records += records;
      state.lost += lost;
      state.applyLagMs = waitedMs;
      state.end = state.end === null || state.end < next ? next : state.end;
    }
  }

  lose(partition: number, first: bigint, next: bigint): void {
    const state = this.#states.get(partition);
    if (state !== undefined) {
      state.lost += next - first;
      state.next = next;
    }
  }

  reset(partition: number, nextOffset: bigint): void {
    const state = this.#states.get(partition);
    if (state !== undefined) {
      state.next = nextOffset;
      state.end = nextOffset;
      state.resets += 1;
    }
  }

  ends(nextOffsets: ReadonlyMap<number, bigint>): void {
    for (const [partition, end] of nextOffsets) {
      const state = this.#states.get(partition);
      if (state !== undefined) {
        state.end = end;
      }
    }
  }

  /** Copies, in the order of their numbers. */
  list(): PartitionState[] {
    return [...this.#states.values()].map((state) => ({ ...state })).sort((a, b) => a.partition - b.partition);
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
