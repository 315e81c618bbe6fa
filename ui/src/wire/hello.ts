// The text frames that the page sends.

/** Where a session begins: `null` is a first visit, which begins at what comes next. */
export interface Cursor {
  /** The epoch that the offsets belong to. */
  epoch: string;
  /** Per partition the next offset to apply. */
  next: Map<number, bigint>;
}

const CLIENT = "dashstream-ui/0.1";

/**
 * The first frame of a session. Partitions that the cursor does not list begin at the start of what is kept: they are
 * new since the cursor was taken, so that nothing of them is missed.
 */
export function buildHello(cursor: Cursor | null): string {
  if (cursor === null) {
    return JSON.stringify({ type: "hello", from: "latest", client: CLIENT });
  }
  const offsets = lastApplied(cursor.next);
  // A cursor that stands at offset 0 everywhere has applied nothing: an empty map is refused, `earliest` says the same.
  const from = Object.keys(offsets).length === 0 ? "earliest" : "cursor";
  return JSON.stringify({
    type: "hello",
    from,
    ...(from === "cursor" ? { lastOffsetsByPartition: offsets } : {}),
    default: "earliest",
    epoch: cursor.epoch,
    client: CLIENT,
  });
}

/** Goes on where a capped replay ended, on the same connection. */
export function buildResume(cursor: Cursor): string {
  const offsets = lastApplied(cursor.next);
  const from = Object.keys(offsets).length === 0 ? "earliest" : "cursor";
  return JSON.stringify({
    type: "resume",
    from,
    ...(from === "cursor" ? { lastOffsetsByPartition: offsets } : {}),
    default: "earliest",
    epoch: cursor.epoch,
  });
}

/** What the page has applied, for the partitions given. */
export function buildApplied(next: Map<number, bigint>): string | null {
  const offsets = lastApplied(next);
  return Object.keys(offsets).length === 0 ? null : JSON.stringify({ type: "applied", offsets });
}

/** Last applied offset per partition as decimal strings; a partition of which nothing was applied is not listed. */
export function lastApplied(next: Map<number, bigint>): Record<string, string> {
  const offsets: Record<string, string> = {};
  for (const [partition, at] of next) {
    if (at > 0n) {
      offsets[String(partition)] = (at - 1n).toString();
    }
  }
  return offsets;
}
