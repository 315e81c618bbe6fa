// The bounds of the wire, in one place. The service uses the same numbers.

/** Largest payload behind the framing byte, before and after decompression, in bytes. */
export const MAX_PAYLOAD_BYTES = 10 * 1024 * 1024;

/** Highest schema version that this page understands; 0 counts as 1. */
export const MAX_SCHEMA_VERSION = 1;

/** Largest control frame that is parsed, in UTF-16 units. */
export const MAX_CONTROL_CHARS = 4 * 1024 * 1024;

/** Most partitions that are accepted in one control frame. */
export const MAX_PARTITIONS = 20_000;
