// The rows that a text filter lets through, kept up to date as rows come and go.

import type { Ring } from "./ring";
import type { Row } from "./rows";

export interface RowSource {
  /** Rows before the first one that were there and are gone: keeps positions steady while the list forgets. */
  readonly gone: number;
  readonly length: number;
  at(index: number): Row | undefined;
}

export const EMPTY_SOURCE: RowSource = { gone: 0, length: 0, at: () => undefined };

/** Words that must all occur. Rows about the stream itself are always shown: a filter must not hide a loss. */
export type RowTest = (row: Row) => boolean;

/** Turns the text of the filter field into a test; null lets everything through. */
export function parseFilter(text: string): RowTest | null {
  const words = text
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "");
  if (words.length === 0) {
    return null;
  }
  return (row) => {
    if (row.type !== "record") {
      return row.type !== "skip";
    }
    const haystack = searchText(row);
    return words.every((word) => haystack.includes(word));
  };
}

function searchText(row: Row & { type: "record" }): string {
  const { summary, failure, findings } = row;
  const body =
    summary === null
      ? `${failure?.kind ?? ""} ${failure?.message ?? ""}`
      : `${summary.kind} ${summary.name} ${summary.tenant} ${summary.thread} ${summary.node} ${summary.detail} ${summary.level}`;
  const found = findings.map((finding) => finding.kind).join(" ");
  return `${body} ${found} ${row.partition}:${row.offset}`.toLowerCase();
}

/** A view of a ring through a test. `refresh` costs only what is new. */
export class FilteredRows implements RowSource {
  readonly #ring: Ring<Row>;
  readonly #test: RowTest;
  #matches: number[] = [];
  #head = 0;
  #gone = 0;
  #examined: number;

  constructor(ring: Ring<Row>, test: RowTest) {
    this.#ring = ring;
    this.#test = test;
    this.#examined = ring.first;
    this.refresh();
  }

  get gone(): number {
    return this.#gone;
  }

  get length(): number {
    return this.#matches.length - this.#head;
  }

  at(index: number): Row | undefined {
    const absolute = this.#matches[this.#head + index];
    return absolute === undefined ? undefined : this.#ring.at(absolute);
  }

  refresh(): void {
    const { first, end } = this.#ring;
    for (let at = Math.max(this.#examined, first); at < end; at += 1) {
      const row = this.#ring.at(at);
      if (row !== undefined && this.#test(row)) {
        this.#matches.push(at);
      }
    }
    this.#examined = end;
    let oldest = this.#matches[this.#head];
    while (oldest !== undefined && oldest < first) {
      this.#head += 1;
      this.#gone += 1;
      oldest = this.#matches[this.#head];
    }
    if (this.#head > 4096) {
      this.#matches = this.#matches.slice(this.#head);
      this.#head = 0;
    }
  }
}

/** A ring as it is now, for as long as somebody looks at it. */
export function frozen(rows: Row[], gone: number): RowSource {
  return { gone, length: rows.length, at: (index) => rows[index] };
}

/** A ring as it is at each moment. */
export function live(ring: Ring<Row>): RowSource {
  return {
    get gone() {
      return ring.first;
    },
    get length() {
      return ring.length;
    },
    at: (index) => ring.at(ring.first + index),
  };
}
