// The text frames that the page sends.

/** A position in the stream. */
export interface Cursor {
  /** The epoch that the offsets belong to. */
  epoch: string;
  /** Per partition the next offset to apply. */
  next: Map<number, bigint>;
}

/** A place in the log that needs no cursor: its end, its oldest record that is kept, or a time in Unix milliseconds. */
export type Place = { from: "latest" } | { from: "earliest" } | { from: "time"; timeMs: number };

/** Where a stream begins. */
export type Start = Place | { from: "cursor"; cursor: Cursor };

const CLIENT = "dashstream-ui/0.1";

/** The first frame of a session. */
export function buildHello(start: Start): string {
  return JSON.stringify({ type: "hello", ...fields(start), client: CLIENT });
}

/** Moves an open session. */
export function buildResume(start: Start): string {
  return JSON.stringify({ type: "resume", ...fields(start) });
}

/** What the page has applied, for the partitions given. */
export function buildApplied(next: ReadonlyMap<number, bigint>): string {
  return JSON.stringify({ type: "applied", offsets: lastApplied(next) });
}

function fields(start: Start): object {
  switch (start.from) {
    case "latest":
    case "earliest":
      return { from: start.from };
    case "time":
      return { from: "time", time: String(Math.trunc(start.timeMs)) };
    case "cursor":
      // Partitions that the cursor does not list are new since it was taken: from their start, nothing is missed.
      return {
        from: "cursor",
        lastOffsetsByPartition: lastApplied(start.cursor.next),
        default: "earliest",
        epoch: start.cursor.epoch,
      };
  }
}

/** Last applied offset per partition as decimal strings; -1 says that nothing of the partition was applied yet. */
export function lastApplied(next: ReadonlyMap<number, bigint>): Record<string, string> {
  const offsets: Record<string, string> = {};
  for (const [partition, at] of next) {
    offsets[String(partition)] = (at - 1n).toString();
  }
  return offsets;
}
