// The text frames of the protocol: what the server may say, checked; what the page says, built.
//
// A frame that breaks the protocol is a defect of the transport and is reported as one; an unknown type is not.

import { MAX_CONTROL_CHARS, MAX_PARTITIONS } from "./limits";
import { cut, parseOffset, parsePartition } from "./numbers";

export interface Welcome {
  type: "welcome";
  epoch: string;
  topic: string;
  resumeNamespace: string;
  heartbeatMs: number;
  partitions: Map<number, { from: bigint; low: bigint; next: bigint }>;
}

export interface Heartbeat {
  type: "heartbeat";
  nextOffsets: Map<number, bigint>;
  status: string;
  reasons: string[];
}

export interface CursorReset {
  type: "cursor_reset";
  partition: number;
  reason: string;
  nextOffset: bigint;
  /** The epoch that begins, where the server names it. */
  epoch: string | null;
}

export type ServerFrame =
  | Welcome
  | Heartbeat
  | CursorReset
  /** With `capped` there is more, and nothing comes until it is asked for. */
  | { type: "replay_complete"; capped: boolean }
  /** The boundary of a page: offsets left to where the log ended at the request. */
  | { type: "replay_progress"; remaining: bigint }
  | { type: "partition_added"; partition: number; from: bigint }
  | { type: "pong" }
  | { type: "error"; code: string; message: string };

export type ParsedControl =
  /** Null: a frame of a type that this page does not know. */
  { ok: true; frame: ServerFrame | null } | { ok: false; message: string };

const MAX_TEXT = 256;
const MAX_REASONS = 16;

type Fields = Record<string, unknown>;

class Malformed extends Error {}

/** Parses a text frame of the server. Never throws. */
export function parseControl(text: string): ParsedControl {
  if (text.length > MAX_CONTROL_CHARS) {
    return { ok: false, message: `a control frame of ${text.length} characters` };
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new Malformed("a control frame that is no object");
    }
    return parseFields(value as Fields);
  } catch (error) {
    const message = error instanceof Malformed ? error.message : "a control frame that is no JSON";
    return { ok: false, message };
  }
}

function parseFields(fields: Fields): ParsedControl {
  switch (fields.type) {
    case "welcome":
      return { ok: true, frame: parseWelcome(fields) };
    case "heartbeat":
      return { ok: true, frame: parseHeartbeat(fields) };
    case "cursor_reset":
      return {
        ok: true,
        frame: {
          type: "cursor_reset",
          partition: partition(fields.partition, "cursor_reset"),
          reason: text(fields.reason),
          nextOffset: offset(fields.nextOffset, "cursor_reset.nextOffset"),
          epoch: typeof fields.epoch === "string" ? fields.epoch : null,
        },
      };
    case "replay_complete":
      return {
        ok: true,
        frame: { type: "replay_complete", capped: fields.capped === true },
      };
    case "replay_progress":
      return {
        ok: true,
        frame: { type: "replay_progress", remaining: offset(fields.remaining, "replay_progress.remaining") },
      };
    case "partition_added":
      return {
        ok: true,
        frame: {
          type: "partition_added",
          partition: partition(fields.partition, "partition_added"),
          from: offset(fields.from, "partition_added.from"),
        },
      };
    case "pong":
      return { ok: true, frame: { type: "pong" } };
    case "error":
      return {
        ok: true,
        frame: { type: "error", code: text(fields.code), message: text(fields.message) },
      };
    default:
      return { ok: true, frame: null };
  }
}

function parseWelcome(fields: Fields): Welcome {
  const partitions = new Map<number, { from: bigint; low: bigint; next: bigint }>();
  for (const [key, value] of entries(fields.partitions, "welcome.partitions")) {
    const window = object(value, `welcome.partitions.${cut(key, 12)}`);
    const from = offset(window.from, "welcome.partitions.from");
    partitions.set(partition(key, "welcome.partitions"), {
      from,
      low: parseOffset(window.low) ?? from,
      next: parseOffset(window.next) ?? from,
    });
  }
  return {
    type: "welcome",
    epoch: requiredText(fields.epoch, "welcome.epoch"),
    topic: text(fields.topic),
    resumeNamespace: requiredText(fields.resumeNamespace, "welcome.resumeNamespace"),
    heartbeatMs: milliseconds(fields.heartbeatMs, 10_000),
    partitions,
  };
}

function parseHeartbeat(fields: Fields): Heartbeat {
  const nextOffsets = new Map<number, bigint>();
  for (const [key, value] of entries(fields.nextOffsets ?? {}, "heartbeat.nextOffsets")) {
    nextOffsets.set(partition(key, "heartbeat.nextOffsets"), offset(value, "heartbeat.nextOffsets"));
  }
  const ingest = object(fields.ingest ?? {}, "heartbeat.ingest");
  const reasons = Array.isArray(ingest.reasons) ? ingest.reasons.slice(0, MAX_REASONS).map(reasonText) : [];
  return {
    type: "heartbeat",
    nextOffsets,
    status: text(ingest.status),
    reasons,
  };
}

/** A reason is an object with a code for machines and a detail for people. */
function reasonText(reason: unknown): string {
  const fields = typeof reason === "object" && reason !== null ? (reason as Fields) : {};
  return text(fields.detail) || text(fields.code) || text(reason);
}

function object(value: unknown, name: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Malformed(`${name} is no object`);
  }
  return value as Fields;
}

function entries(value: unknown, name: string): [string, unknown][] {
  const found = Object.entries(object(value, name));
  if (found.length > MAX_PARTITIONS) {
    throw new Malformed(`${name} lists ${found.length} partitions`);
  }
  return found;
}

function text(value: unknown): string {
  return typeof value === "string"
    ? cut(value, MAX_TEXT)
    : value === undefined || value === null
      ? ""
      : cut(String(value), MAX_TEXT);
}

function requiredText(value: unknown, name: string): string {
  if (typeof value !== "string" || value === "" || value.length > MAX_TEXT) {
    throw new Malformed(`${name} is missing or no short text`);
  }
  return value;
}

function offset(value: unknown, name: string): bigint {
  const parsed = parseOffset(value);
  if (parsed === null) {
    throw new Malformed(`${name} is no offset`);
  }
  return parsed;
}

function partition(value: unknown, name: string): number {
  const parsed = parsePartition(value);
  if (parsed === null) {
    throw new Malformed(`${name} names no partition`);
  }
  return parsed;
}

function milliseconds(value: unknown, fallback: number): number {
  return typeof value === "number" && value >= 50 && value <= 3_600_000 ? value : fallback;
}
