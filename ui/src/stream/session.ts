// One session's view of the protocol: what each frame means for the positions. Pure but for `emit`.
//
// A fault is a breach of the promise that every offset is covered exactly once. It is reported, and the client
// reconnects with its cursor. When the same breach comes back at the same place, it is shown as a hole and the stream
// goes on: a defect of one offset must not end the page.

import type { CursorReset, ServerFrame, Welcome } from "../wire/control";
import type { DecodedFrame, RangeItem, RecordItem } from "../wire/frame";
import type { Ask } from "./asking";
import type { Mode, StreamEvent } from "./events";
import { describeViolation, type Positions, type Violation } from "./positions";

/** Reasons for a reset that come with a new epoch: offsets of every partition are void. */
const NEW_EPOCH = new Set(["topic_recreated", "manual_reset"]);

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
  #welcome: Welcome | null = null;
  #dropsStorage = false;
  /** Partitions of which this session has said where they begin. */
  #announced = new Set<number>();

  constructor(positions: Positions, breaches: Breaches, emit: (event: StreamEvent) => void) {
    this.#positions = positions;
    this.#breaches = breaches;
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

  /** The stream begins, or begins anew, as it was asked for. Returns a fault when nobody has asked. */
  begin(welcome: Welcome, asked: Ask | null): string | null {
    if (asked === null) {
      return "a welcome that nobody has asked for";
    }
    const { mode, start } = asked;
    this.#welcome = welcome;
    const positions = this.#positions;
    if (positions.enterEpoch(welcome.epoch)) {
      this.#dropsStorage = true;
    }
    if (start.from === "cursor" && start.cursor.epoch === welcome.epoch) {
      positions.waitForNoReset();
    }
    this.#announced = new Set(welcome.partitions.keys());
    const goesOn = mode === "resume" || mode === "on";
    // A log has its partitions for good. One that is missing is one of which this instance has not heard yet.
    positions.retainOnly(this.#announced, goesOn);
    this.#emit({
      type: "welcome",
      topic: welcome.topic,
      epoch: welcome.epoch,
      heartbeatMs: welcome.heartbeatMs,
      mode,
      history: mode === "history" && start.from !== "cursor" ? start : null,
      partitions: [...welcome.partitions].map(([partition, window]) => ({ partition, ...window })),
    });
    for (const [partition, { from }] of welcome.partitions) {
      this.#place(mode, partition, from);
    }
    return null;
  }

  /** Applies a control frame other than welcome. Returns a fault for a breach of the protocol. */
  onControl(frame: Exclude<ServerFrame, Welcome>): string | null {
    if (this.#welcome === null) {
      return `a ${frame.type} frame before welcome`;
    }
    switch (frame.type) {
      case "cursor_reset":
        return this.#onReset(frame);
      case "partition_added":
        return this.#onPartitionAdded(frame.partition, frame.from);
      case "replay_progress":
        this.#emit({ type: "progress", remaining: frame.remaining });
        return null;
      case "replay_complete":
        if (!frame.capped) {
          this.#emit({ type: "caught_up" });
        }
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

  #place(mode: Mode, partition: number, from: bigint): void {
    const at = this.#positions.partitions.get(partition);
    const goesOn = mode === "resume" || mode === "on";
    if (!goesOn) {
      if (mode === "jump" && at !== undefined && from > at) {
        this.#emit({ type: "hole", partition, first: at, next: from, reason: "jumped" });
      }
      this.#positions.place(partition, from);
    } else if (!this.#positions.isKnown(partition)) {
      // The service decides where it begins.
      this.#positions.place(partition, from);
    }
    // Otherwise the position stands, or its reset is still to come: the stream must go on exactly there, or explain
    // itself by a reset or a gap.
  }

  #onReset(frame: CursorReset): string | null {
    const before = this.#positions.partitions.get(frame.partition) ?? null;
    const newEpoch = NEW_EPOCH.has(frame.reason);
    if (newEpoch) {
      if (frame.epoch === null) {
        return "a reset that does not name the epoch that begins";
      }
      this.#positions.enterEpoch(frame.epoch);
    }
    this.#dropsStorage = true;
    this.#positions.place(frame.partition, frame.nextOffset);
    this.#emit({
      type: "reset",
      partition: frame.partition,
      reason: frame.reason,
      newEpoch,
      before,
      nextOffset: frame.nextOffset,
    });
    return null;
  }

  #onPartitionAdded(partition: number, from: bigint): string | null {
    // One that this page knows from another instance, and this one has only now heard of, goes on where the page is.
    const at = this.#positions.partitions.get(partition);
    if (at !== undefined && (this.#announced.has(partition) || at !== from)) {
      return `partition ${partition} was added at ${from} although it is known at ${at}`;
    }
    this.#announced.add(partition);
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
