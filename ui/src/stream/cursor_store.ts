// Cursors in the browser's storage, one per resume namespace.
//
// A tab's own entry comes first (session storage outlives a reload), then the browser's. What cannot be read is removed
// and counts as a first visit: a broken entry must never keep the page from connecting.

import type { Cursor } from "../wire/hello";
import { lastApplied } from "../wire/hello";
import { MAX_PARTITIONS } from "../wire/limits";
import { parseOffset, parsePartition } from "../wire/numbers";

export type KeyValueStore = Pick<Storage, "getItem" | "setItem" | "removeItem">;

const PREFIX = "dashstream.v2.cursor:";
const LAST_NAMESPACE = "dashstream.v2.namespace";
const MAX_STORED_CHARS = 1024 * 1024;
const MAX_NAME_CHARS = 256;

export interface Loaded {
  cursor: Cursor | null;
  /** Set when an entry was there but unusable. */
  warning: string | null;
}

export class CursorStore {
  readonly #stores: KeyValueStore[];

  /** `stores` in order of trust. Any of them may throw; then it is ignored. */
  constructor(stores: KeyValueStore[]) {
    this.#stores = stores;
  }

  /** The namespace that was used last, for when the service cannot be asked. */
  lastNamespace(): string | null {
    const name = this.#read(LAST_NAMESPACE);
    return name !== null && name !== "" && name.length <= MAX_NAME_CHARS ? name : null;
  }

  load(namespace: string): Loaded {
    let warning: string | null = null;
    for (const store of this.#stores) {
      const text = attempt(() => store.getItem(PREFIX + namespace)) ?? null;
      if (text === null) {
        continue;
      }
      const cursor = parseStored(text);
      if (cursor !== null) {
        return { cursor, warning };
      }
      warning = "a stored position was unreadable and was removed";
      attempt(() => store.removeItem(PREFIX + namespace));
    }
    return { cursor: null, warning };
  }

  /** The first store is the tab's own. */
  save(namespace: string, cursor: Cursor, nowMs: number, scope: "tab" | "browser"): void {
    const text = formatStored(cursor, nowMs);
    for (const store of scope === "tab" ? this.#stores.slice(0, 1) : this.#stores) {
      attempt(() => {
        store.setItem(PREFIX + namespace, text);
        store.setItem(LAST_NAMESPACE, namespace);
      });
    }
  }

  drop(namespace: string): void {
    for (const store of this.#stores) {
      attempt(() => store.removeItem(PREFIX + namespace));
    }
  }

  #read(key: string): string | null {
    for (const store of this.#stores) {
      const text = attempt(() => store.getItem(key)) ?? null;
      if (text !== null) {
        return text;
      }
    }
    return null;
  }
}

/** Storage may be disabled, full or blocked; the page works without it. */
function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

export function formatStored(cursor: Cursor, nowMs: number): string {
  return JSON.stringify({
    version: 1,
    epoch: cursor.epoch,
    savedAtMs: nowMs,
    lastOffsetsByPartition: lastApplied(cursor.next),
  });
}

/** Reads a stored cursor; null for anything that is not exactly one. */
export function parseStored(text: string): Cursor | null {
  if (text.length > MAX_STORED_CHARS) {
    return null;
  }
  const value = attempt((): unknown => JSON.parse(text));
  if (typeof value !== "object" || value === null) {
    return null;
  }
  const { version, epoch, lastOffsetsByPartition } = value as Record<string, unknown>;
  const isComplete = version === 1 && typeof epoch === "string" && epoch !== "" && epoch.length <= MAX_NAME_CHARS;
  if (!isComplete || typeof lastOffsetsByPartition !== "object" || lastOffsetsByPartition === null) {
    return null;
  }
  const next = new Map<number, bigint>();
  const isSound = Object.entries(lastOffsetsByPartition).every(([key, last]) => add(next, key, last));
  return isSound && next.size > 0 ? { epoch, next } : null;
}

function add(next: Map<number, bigint>, key: string, last: unknown): boolean {
  const partition = parsePartition(key);
  const offset = last === "-1" ? -1n : typeof last === "string" ? parseOffset(last) : null;
  if (partition === null || offset === null || next.size >= MAX_PARTITIONS) {
    return false;
  }
  next.set(partition, offset + 1n);
  return true;
}
