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
  const start = cursor === null ? { from: "latest" } : fromCursor(cursor);
  return JSON.stringify({ type: "hello", ...start, client: CLIENT });
}

/** Goes on where a capped replay ended, on the same connection. */
export function buildResume(cursor: Cursor): string {
  return JSON.stringify({ type: "resume", ...fromCursor(cursor) });
}

/** What the page has applied, for the partitions given. */
export function buildApplied(next: ReadonlyMap<number, bigint>): string {
  return JSON.stringify({ type: "applied", offsets: lastApplied(next) });
}

function fromCursor(cursor: Cursor): object {
  return {
    from: "cursor",
    lastOffsetsByPartition: lastApplied(cursor.next),
    default: "earliest",
    epoch: cursor.epoch,
  };
}

/** Last applied offset per partition as decimal strings; -1 says that nothing of the partition was applied yet. */
export function lastApplied(next: ReadonlyMap<number, bigint>): Record<string, string> {
  const offsets: Record<string, string> = {};
  for (const [partition, at] of next) {
    offsets[String(partition)] = (at - 1n).toString();
  }
  return offsets;
}
