// Applied positions per partition, and the check that the stream covers every offset exactly once. Pure.

import type { Cursor } from "../wire/hello";

export interface Violation {
  partition: number;
  expected: bigint | null;
  first: bigint;
  next: bigint;
}

/**
 * Where a stream stands. A partition is *placed* when its next offset is known, and *unplaced* when offsets of an
 * older epoch were dropped and the reset that gives the new ones has not come yet.
 */
export class Positions {
  #epoch = "";
  #next = new Map<number, bigint>();
  #unplaced = new Set<number>();
  /** The cursor of the epoch before, for as long as nothing is placed in the new one. */
  #before: Cursor | null = null;

  get epoch(): string {
    return this.#epoch;
  }

  get partitions(): ReadonlyMap<number, bigint> {
    return this.#next;
  }

  /** Takes over a stored cursor before the first session. */
  restore(cursor: Cursor): void {
    this.#epoch = cursor.epoch;
    this.#next = new Map(cursor.next);
    this.#unplaced.clear();
    this.#before = null;
  }

  /** Begins an epoch. Offsets of another one are dropped; those partitions wait for their reset. True when it changed. */
  enterEpoch(epoch: string): boolean {
    const changed = this.#epoch !== "" && this.#epoch !== epoch;
    if (changed) {
      this.#before = this.cursor();
      for (const partition of this.#next.keys()) {
        this.#unplaced.add(partition);
      }
      this.#next.clear();
    }
    this.#epoch = epoch;
    return changed;
  }

  isKnown(partition: number): boolean {
    return this.#next.has(partition) || this.#unplaced.has(partition);
  }

  /** Forgets the other partitions; if `keepsPlaced`, only those that wait for a reset. */
  retainOnly(partitions: ReadonlySet<number>, keepsPlaced: boolean): void {
    for (const known of [...(keepsPlaced ? [] : this.#next.keys()), ...this.#unplaced]) {
      if (!partitions.has(known)) {
        this.#next.delete(known);
        this.#unplaced.delete(known);
      }
    }
  }

  /**
   * The service takes the cursor as one of its own epoch. What it does not list begins where the service says, and no reset
   * will come for it: the one that was to come was lost with an earlier connection.
   */
  waitForNoReset(): void {
    this.#unplaced.clear();
  }

  /** The partition goes on at `offset`, whatever was before. */
  place(partition: number, offset: bigint): void {
    this.#before = null;
    this.#unplaced.delete(partition);
    this.#next.set(partition, offset);
  }

  /** What is wrong with a frame that covers `[first, next)`, or null. */
  check(partition: number, first: bigint, next: bigint): Violation | null {
    const expected = this.#next.get(partition) ?? null;
    return expected === first && next >= first ? null : { partition, expected, first, next };
  }

  /** The stream up to `next` is applied. Call only after `check` found nothing. */
  advance(partition: number, next: bigint): void {
    this.#next.set(partition, next);
  }

  /**
   * The cursor from which a later session goes on: of one epoch, never of two. Partitions without a place are not in it;
   * while none has one it is that of the epoch before, so that the resets are told again. Null when there is none.
   */
  cursor(): Cursor | null {
    const isPlaced = this.#epoch !== "" && this.#next.size > 0;
    return isPlaced ? { epoch: this.#epoch, next: new Map(this.#next) } : this.#before;
  }
}

/** A short text for a person. */
export function describeViolation(violation: Violation): string {
  const due = violation.expected === null ? "no position was agreed" : `offset ${violation.expected} was due`;
  return `partition ${violation.partition}: a frame began at offset ${violation.first} where ${due}`;
}
