// The bounds of the wire, in one place. The service uses the same numbers.

/** What is accepted as the value of a record. The service may be configured otherwise; it says so. */
export interface Framing {
  /** Largest payload behind the framing byte, before and after decompression, in bytes. */
  maxPayloadBytes: number;
  /** Whether values without a framing byte are accepted: protobuf, or one zstd frame of it. */
  legacy: boolean;
}

export const DEFAULT_FRAMING: Framing = { maxPayloadBytes: 10 * 1024 * 1024, legacy: false };

/** Highest schema version that this page understands; 0 counts as 1. */
export const MAX_SCHEMA_VERSION = 1;

/** Largest control frame that is parsed, in UTF-16 units. */
export const MAX_CONTROL_CHARS = 4 * 1024 * 1024;

/** Most partitions that are accepted in one control frame. */
export const MAX_PARTITIONS = 20_000;
