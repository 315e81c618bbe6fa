// One session's view of the protocol: what each frame means for the positions. Pure but for `emit`.
//
// A fault is a breach of the promise that every offset is covered exactly once. It is reported, and the client
// reconnects with its cursor. When the same breach comes back at the same place, it is shown as a hole and the stream
// goes on: a defect of one offset must not end the page.

import type { CursorReset, ServerFrame, Welcome } from "../wire/control";
import type { DecodedFrame, RangeItem, RecordItem } from "../wire/frame";
import type { StreamEvent } from "./events";
import { describeViolation, type Positions, type Violation } from "./positions";

/** Reasons for a reset that come with a new epoch: offsets of every partition are void. */
const NEW_EPOCH = new Set(["topic_recreated", "manual_reset", "epoch"]);

const ATTEMPTS_PER_BREACH = 2;
const MAX_BREACHES = 1_000;

/** Counts breaches over sessions. */
export class Breaches {
  #seen = new Map<string, number>();

  /** True when the breach was seen often enough to go on past it. */
  isPersistent(violation: Violation): boolean {
    const key = `${violation.partition}:${violation.expected}:${violation.first}`;
    const count = (this.#seen.get(key) ?? 0) + 1;
    if (this.#seen.size >= MAX_BREACHES) {
      this.#seen.clear();
    }
    this.#seen.set(key, count);
    return count > ATTEMPTS_PER_BREACH;
  }
}

export class Session {
  readonly #positions: Positions;
  readonly #breaches: Breaches;
  readonly #emit: (event: StreamEvent) => void;
  readonly #mode: "resume" | "jump" | "first";
  #welcome: Welcome | null = null;
  #dropsStorage = false;

  /** `mode`: with a cursor, from the newest although there are positions, or for the first time. */
  constructor(
    positions: Positions,
    breaches: Breaches,
    mode: "resume" | "jump" | "first",
    emit: (event: StreamEvent) => void,
  ) {
    this.#positions = positions;
    this.#breaches = breaches;
    this.#mode = mode;
    this.#emit = emit;
  }

  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /** True once after offsets became void: what is stored of them has to go. */
  takeDropsStorage(): boolean {
    const drops = this.#dropsStorage;
    this.#dropsStorage = false;
    return drops;
  }

  /** Applies a control frame. Returns a fault for a breach of the protocol. */
  onControl(frame: ServerFrame): string | null {
    if (frame.type === "welcome") {
      return this.#onWelcome(frame);
    }
    if (this.#welcome === null) {
      return `a ${frame.type} frame before welcome`;
    }
    switch (frame.type) {
      case "cursor_reset":
        this.#onReset(frame);
        return null;
      case "partition_added":
        return this.#onPartitionAdded(frame.partition, frame.from);
      case "replay_complete":
        this.#emit({ type: "caught_up", capped: frame.capped });
        return null;
      default:
        return null;
    }
  }

  /** Applies a frame of data. Returns a fault when it does not continue the stream. */
  onData(frame: DecodedFrame, waitedMs: number): string | null {
    if (this.#welcome === null) {
      return "data before welcome";
    }
    const violation = this.#positions.check(frame.partition, frame.first, frame.next);
    if (violation === null) {
      this.#positions.advance(frame.partition, frame.next);
      this.#emit({ type: "data", frame, waitedMs });
      return null;
    }
    if (!this.#breaches.isPersistent(violation)) {
      return describeViolation(violation);
    }
    this.#goPast(violation, frame, waitedMs);
    return null;
  }

  #onWelcome(welcome: Welcome): string | null {
    if (this.#welcome !== null) {
      return "a second welcome";
    }
    this.#welcome = welcome;
    const positions = this.#positions;
    if (positions.enterEpoch(welcome.epoch)) {
      this.#dropsStorage = true;
    }
    positions.retainOnly(new Set(welcome.partitions.keys()));
    const partitions = [...welcome.partitions].map(([partition, window]) => ({ partition, ...window }));
    const resumed = this.#mode === "resume";
    this.#emit({
      type: "welcome",
      topic: welcome.topic,
      epoch: welcome.epoch,
      heartbeatMs: welcome.heartbeatMs,
      resumed,
      partitions,
    });
    for (const { partition, from } of partitions) {
      this.#begin(partition, from);
    }
    return null;
  }

  #begin(partition: number, from: bigint): void {
    const at = this.#positions.partitions.get(partition);
    if (at === undefined) {
      // Known but not placed: its reset is still to come. Unknown: the server decides where it begins.
      if (!this.#positions.isKnown(partition) || this.#mode !== "resume") {
        this.#positions.place(partition, from);
      }
      return;
    }
    if (this.#mode === "jump") {
      if (from > at) {
        this.#emit({ type: "hole", partition, first: at, next: from, reason: "jumped" });
      }
      this.#positions.place(partition, from);
    }
    // Otherwise the position stands: the stream must go on exactly there, or explain itself by a reset or a gap.
  }

  #onReset(frame: CursorReset): void {
    const before = this.#positions.partitions.get(frame.partition) ?? null;
    if (NEW_EPOCH.has(frame.reason) && frame.epoch !== null) {
      this.#positions.enterEpoch(frame.epoch);
    }
    this.#dropsStorage = true;
    this.#positions.place(frame.partition, frame.nextOffset);
    this.#emit({
      type: "reset",
      partition: frame.partition,
      reason: frame.reason,
      before,
      nextOffset: frame.nextOffset,
    });
  }

  #onPartitionAdded(partition: number, from: bigint): string | null {
    if (this.#positions.partitions.has(partition)) {
      return `partition ${partition} was added although it is known`;
    }
    this.#positions.place(partition, from);
    this.#emit({ type: "partition_added", start: { partition, from, low: from, next: from } });
    return null;
  }

  #goPast(violation: Violation, frame: DecodedFrame, waitedMs: number): void {
    const { partition, expected, first } = violation;
    const text = `${describeViolation(violation)}; it came back after a reconnect and is passed over`;
    this.#emit({ type: "notice", level: "error", topic: "protocol", text });
    if (expected !== null && first > expected) {
      this.#emit({ type: "hole", partition, first: expected, next: first, reason: "unexplained" });
    }
    const rest = expected === null || first >= expected ? frame : clip(frame, expected);
    this.#positions.place(partition, expected === null || rest.next > expected ? rest.next : expected);
    if (rest.next > rest.first) {
      this.#emit({ type: "data", frame: rest, waitedMs });
    }
  }
}

/** The part of a frame from `from` on; what lies before was applied already. */
export function clip(frame: DecodedFrame, from: bigint): DecodedFrame {
  const items: (RecordItem | RangeItem)[] = [];
  for (const item of frame.items) {
    if (item.type === "record") {
      if (item.offset >= from) {
        items.push(item);
      }
    } else if (item.next > from) {
      items.push(item.first >= from ? item : { ...item, first: from });
    }
  }
  const first = from < frame.next ? from : frame.next;
  return { ...frame, first, items };
}
