// From a binary WebSocket message to plain items that can cross a worker boundary.
//
// Checks that the items of a frame cover its range completely and in order. Whether frames touch each other is the
// business of the stream layer.

import { fromBinary } from "@bufbuild/protobuf";
import { type DecodeFailure, decodeRecord } from "./decode";
import {
  FindingKind,
  type Frame,
  FrameSchema,
  GapReason,
  type Item,
  type Record as RecordMessage,
  SkipReason,
} from "./generated/stream_pb";
import { DEFAULT_FRAMING, type Framing } from "./limits";
import { type Summary, summarize } from "./summary";

export interface FindingInfo {
  kind: "gap" | "duplicate" | "reorder" | "producer_restart" | "unknown";
  eventIndex: number;
  expected: bigint;
  found: bigint;
}

export interface RecordItem {
  type: "record";
  offset: bigint;
  /** Kafka's timestamp in Unix milliseconds, 0 when there is none. */
  timestampMs: number;
  /** A view into the frame's buffer, as it lies in Kafka. */
  value: Uint8Array;
  findings: FindingInfo[];
  outcome: { ok: true; summary: Summary } | DecodeFailure;
}

export interface RangeItem {
  type: "skip" | "gap";
  first: bigint;
  next: bigint;
  /** The reason in lower case, as `no_record` or `retention`. */
  reason: string;
}

export interface DecodedFrame {
  ok: true;
  partition: number;
  first: bigint;
  next: bigint;
  bytes: number;
  items: (RecordItem | RangeItem)[];
}

export interface FrameFailure {
  ok: false;
  message: string;
}

/** Decodes a frame and all its records. Never throws; a record that cannot be read is an item with a failure. */
export function decodeFrame(buffer: ArrayBuffer, framing: Framing = DEFAULT_FRAMING): DecodedFrame | FrameFailure {
  let frame: Frame;
  try {
    frame = fromBinary(FrameSchema, new Uint8Array(buffer), { readUnknownFields: false });
  } catch (error) {
    return { ok: false, message: `unreadable frame: ${error instanceof Error ? error.message : "unknown fault"}` };
  }
  const fault = checkCoverage(frame);
  if (fault !== null) {
    return { ok: false, message: fault };
  }
  const items: (RecordItem | RangeItem)[] = [];
  for (const item of frame.items) {
    const decoded = decodeItem(item, framing);
    if (decoded !== null) {
      items.push(decoded);
    }
  }
  return {
    ok: true,
    partition: frame.partition,
    first: frame.firstOffset,
    next: frame.nextOffset,
    bytes: buffer.byteLength,
    items,
  };
}

/** What is wrong with the coverage of a frame, or null. Every offset must lie in exactly one item, in order. */
export function checkCoverage(frame: Frame): string | null {
  if (frame.partition < 0 || frame.firstOffset < 0n || frame.nextOffset <= frame.firstOffset) {
    return `frame with an impossible range: partition ${frame.partition}, [${frame.firstOffset}, ${frame.nextOffset})`;
  }
  let at = frame.firstOffset;
  for (const item of frame.items) {
    const range = rangeOf(item);
    if (range === null) {
      return `partition ${frame.partition}: an item of an unknown kind at offset ${at}`;
    }
    if (range.first !== at || range.next <= range.first) {
      return `partition ${frame.partition}: item [${range.first}, ${range.next}) where offset ${at} was due`;
    }
    at = range.next;
  }
  if (at !== frame.nextOffset) {
    return `partition ${frame.partition}: items end at ${at}, the frame at ${frame.nextOffset}`;
  }
  return null;
}

function rangeOf(item: Item): { first: bigint; next: bigint } | null {
  switch (item.kind.case) {
    case "record":
      return { first: item.kind.value.offset, next: item.kind.value.offset + 1n };
    case "skip":
    case "gap":
      return { first: item.kind.value.firstOffset, next: item.kind.value.nextOffset };
    default:
      return null;
  }
}

function decodeItem(item: Item, framing: Framing): RecordItem | RangeItem | null {
  switch (item.kind.case) {
    case "record":
      return decodeRecordItem(item.kind.value, framing);
    case "skip": {
      const { firstOffset: first, nextOffset: next, reason } = item.kind.value;
      return { type: "skip", first, next, reason: nameOf(SkipReason[reason]) };
    }
    case "gap": {
      const { firstOffset: first, nextOffset: next, reason } = item.kind.value;
      return { type: "gap", first, next, reason: nameOf(GapReason[reason]) };
    }
    default:
      return null;
  }
}

function decodeRecordItem(record: RecordMessage, framing: Framing): RecordItem {
  const decoded = decodeRecord(record.value, framing);
  return {
    type: "record",
    offset: record.offset,
    timestampMs: Number(record.timestampMs),
    value: record.value,
    findings: record.findings.map((finding) => ({
      kind: nameOf(FindingKind[finding.kind]) as FindingInfo["kind"],
      eventIndex: finding.eventIndex,
      expected: finding.expected,
      found: finding.found,
    })),
    outcome: decoded.ok ? { ok: true, summary: summarize(decoded.message) } : decoded,
  };
}

/** `NO_RECORD` → `no_record`; a number that this page does not know → `unknown`. */
function nameOf(name: string | undefined): string {
  return name === undefined || name === "UNSPECIFIED" ? "unknown" : name.toLowerCase();
}
