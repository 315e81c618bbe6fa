// From the value of a Kafka record to a message, with one named reason for everything that cannot be read.
//
// The only decoder of the page: the worker and the main thread both call it. It knows nothing of sockets or views.

import { fromBinary } from "@bufbuild/protobuf";
import { type DashStreamMessage, DashStreamMessageSchema, type Header } from "./generated/dashstream_pb";
import { DEFAULT_FRAMING, type Framing, MAX_SCHEMA_VERSION } from "./limits";
import { cut } from "./numbers";
import { decompressFrame, isZstdFrame } from "./zstd";

export type DecodeFailureKind =
  | "payload_missing"
  | "payload_too_large"
  | "unknown_framing"
  | "decompression_failed"
  | "decompressed_too_large"
  | "invalid_protobuf"
  | "schema_version"
  | "internal";

export interface DecodeFailure {
  ok: false;
  kind: DecodeFailureKind;
  /** Bounded text for a person. */
  message: string;
}

export type DecodeResult = { ok: true; message: DashStreamMessage } | DecodeFailure;

const MAX_FAILURE_CHARS = 240;

function fail(kind: DecodeFailureKind, message: string): DecodeFailure {
  return { ok: false, kind, message: cut(message, MAX_FAILURE_CHARS) };
}

/** Decodes one record value. Never throws; sizes are checked before anything is allocated for them. */
export function decodeRecord(value: Uint8Array, framing: Framing = DEFAULT_FRAMING): DecodeResult {
  try {
    return decodeChecked(value, framing);
  } catch (error) {
    return fail("internal", error instanceof Error ? error.message : "unknown fault");
  }
}

const PLAIN = 0x00;
const ZSTD = 0x01;

function decodeChecked(value: Uint8Array, { maxPayloadBytes, legacy }: Framing): DecodeResult {
  const first = value[0];
  if (first === undefined) {
    return fail("payload_missing", "the record has no value");
  }
  const isFramed = first === PLAIN || first === ZSTD;
  const body = isFramed ? value.subarray(1) : value;
  if (body.length > maxPayloadBytes) {
    return fail("payload_too_large", `${body.length} bytes, limit ${maxPayloadBytes}`);
  }
  if (!isFramed && !legacy) {
    return fail("unknown_framing", `framing byte 0x${first.toString(16).padStart(2, "0")}`);
  }
  if (first === ZSTD || (!isFramed && isZstdFrame(body))) {
    const result = decompressFrame(body, maxPayloadBytes);
    return result.ok ? parse(result.bytes) : fail(result.kind, result.message);
  }
  return parse(body);
}

function parse(bytes: Uint8Array): DecodeResult {
  let message: DashStreamMessage;
  try {
    message = fromBinary(DashStreamMessageSchema, bytes, { readUnknownFields: false });
  } catch (error) {
    return fail("invalid_protobuf", error instanceof Error ? error.message : "unreadable");
  }
  if (message.message.case === undefined) {
    return fail("invalid_protobuf", "none of the known messages is set");
  }
  const version = Math.max(1, ...headersOf(message).map((header) => header.schemaVersion));
  if (version > MAX_SCHEMA_VERSION) {
    return fail("schema_version", `schema version ${version}, this page understands ${MAX_SCHEMA_VERSION}`);
  }
  return { ok: true, message };
}

function headersOf(message: DashStreamMessage): Header[] {
  const header = message.message.value?.header;
  return header === undefined ? [] : [header];
}
