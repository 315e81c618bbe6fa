// The rows of the event list: everything that happened to the stream, in the order in which it was applied.

import type { DecodeFailure } from "../wire/decode";
import type { FindingInfo, RangeItem, RecordItem } from "../wire/frame";
import type { Place } from "../wire/hello";
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
  /** Each of the two; null when there is none, or none that a clock could show. */
  producerMs: number | null;
  kafkaMs: number | null;
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

/** Offsets of the partition start again, or its position was moved by the service. */
export interface ResetRow extends RowBase {
  type: "reset";
  partition: number;
  reason: string;
  newEpoch: boolean;
  before: bigint | null;
  nextOffset: bigint;
}

export interface NoteRow extends RowBase {
  type: "note";
  level: "info" | "warning" | "error";
  text: string;
}

/** From here on come records that somebody has asked for: the list has begun anew. */
export interface HistoryRow extends RowBase {
  type: "history";
  start: Place;
}

/** From here on come records as they arrive; before it, so many of history or of an absence. */
export interface LiveRow extends RowBase {
  type: "live";
  records: number;
  isAfterHistory: boolean;
}

export type Row = RecordRow | RangeRow | ResetRow | NoteRow | HistoryRow | LiveRow;

const ROW_OVERHEAD = 400;
const MAX_SANE_MS = 8_640_000_000_000_000;

export function recordRow(id: number, partition: number, item: RecordItem): RecordRow {
  const summary = item.outcome.ok ? item.outcome.summary : null;
  const producerMs = summary === null ? null : sane(Number(summary.timeUs / 1000n));
  const kafkaMs = sane(item.timestampMs);
  return {
    type: "record",
    id,
    bytes: ROW_OVERHEAD + item.value.length,
    partition,
    offset: item.offset,
    timeMs: producerMs ?? kafkaMs,
    producerMs,
    kafkaMs,
    summary,
    failure: item.outcome.ok ? null : item.outcome,
    findings: item.findings,
    value: item.value,
  };
}

function sane(ms: number): number | null {
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

export function resetRow(id: number, event: Omit<ResetRow, "type" | "id" | "bytes">): ResetRow {
  const { partition, reason, newEpoch, before, nextOffset } = event;
  return { type: "reset", id, bytes: ROW_OVERHEAD, partition, reason, newEpoch, before, nextOffset };
}

export function historyRow(id: number, start: Place): HistoryRow {
  return { type: "history", id, bytes: ROW_OVERHEAD, start };
}

export function liveRow(id: number, records: number, isAfterHistory: boolean): LiveRow {
  return { type: "live", id, bytes: ROW_OVERHEAD, records, isAfterHistory };
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
