// The rows of the event list: everything that happened to the stream, in the order in which it was applied.

import type { DecodeFailure } from "../wire/decode";
import type { FindingInfo, RangeItem, RecordItem } from "../wire/frame";
import type { Summary } from "../wire/summary";

interface RowBase {
  /** Counts up from 1 over the life of the page; never reused. */
  id: number;
  /** Approximate memory that the row holds, in bytes. */
  bytes: number;
}

export interface RecordRow extends RowBase {
  type: "record";
  partition: number;
  offset: bigint;
  /** Producer's time where it is known, else Kafka's, in Unix milliseconds; null when there is neither. */
  timeMs: number | null;
  kafkaMs: number;
  summary: Summary | null;
  failure: DecodeFailure | null;
  findings: FindingInfo[];
  value: Uint8Array;
}

/** A range of offsets without records: nothing for us (`skip`), lost (`gap`), or missing without a word (`hole`). */
export interface RangeRow extends RowBase {
  type: "skip" | "gap" | "hole";
  partition: number;
  first: bigint;
  next: bigint;
  reason: string;
}

export interface ResetRow extends RowBase {
  type: "reset";
  partition: number;
  reason: string;
  before: bigint | null;
  nextOffset: bigint;
}

export interface NoteRow extends RowBase {
  type: "note";
  level: "info" | "warning" | "error";
  text: string;
}

export type Row = RecordRow | RangeRow | ResetRow | NoteRow;

const ROW_OVERHEAD = 400;
const MAX_SANE_MS = 8_640_000_000_000_000;

export function recordRow(id: number, partition: number, item: RecordItem): RecordRow {
  const summary = item.outcome.ok ? item.outcome.summary : null;
  return {
    type: "record",
    id,
    bytes: ROW_OVERHEAD + item.value.length,
    partition,
    offset: item.offset,
    timeMs: timeOf(summary, item.timestampMs),
    kafkaMs: item.timestampMs,
    summary,
    failure: item.outcome.ok ? null : item.outcome,
    findings: item.findings,
    value: item.value,
  };
}

function timeOf(summary: Summary | null, kafkaMs: number): number | null {
  const producerMs = summary === null ? 0 : Number(summary.timeUs / 1000n);
  const ms = producerMs > 0 ? producerMs : kafkaMs;
  return ms > 0 && ms <= MAX_SANE_MS ? ms : null;
}

export function rangeRow(
  id: number,
  partition: number,
  item: RangeItem | (Omit<RangeItem, "type"> & { type: "hole" }),
): RangeRow {
  return {
    id,
    bytes: ROW_OVERHEAD,
    partition,
    type: item.type,
    first: item.first,
    next: item.next,
    reason: item.reason,
  };
}

export function noteRow(id: number, level: NoteRow["level"], text: string): NoteRow {
  return { type: "note", id, bytes: ROW_OVERHEAD + text.length * 2, level, text };
}

/** Two skips that touch, for the same reason, read as one. Null when they do not. */
export function mergeSkips(before: Row | undefined, after: RangeRow): RangeRow | null {
  const touches =
    before?.type === "skip" &&
    after.type === "skip" &&
    before.partition === after.partition &&
    before.reason === after.reason &&
    before.next === after.first;
  return touches ? { ...after, first: before.first } : null;
}
