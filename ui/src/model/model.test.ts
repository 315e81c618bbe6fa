import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { frameOf } from "../../testing/frames";
import type { StreamEvent } from "../stream/events";
import { type DecodedFrame, decodeFrame, type RangeItem } from "../wire/frame";
import type { RunTouch } from "../wire/summary";
import { FilteredRows, parseFilter } from "./filter";
import { Model } from "./model";
import { lagOf } from "./partitions";
import { Pipeline } from "./pipeline";
import { Rate } from "./rates";
import { Ring } from "./ring";
import type { Row } from "./rows";
import { Runs } from "./runs";

const start = (partition: number, from: bigint) => ({ partition, from, low: 0n, next: from });

function model(): Model {
  const made = new Model({ maxRows: 100, maxRowBytes: 1_000_000, maxRuns: 10 });
  const partitions = [start(0, 0n), start(1, 0n)];
  made.apply(
    { type: "welcome", topic: "t", epoch: "e", heartbeatMs: 1000, mode: "first", history: null, partitions },
    0,
  );
  return made;
}

function records(partition: number, first: bigint, next: bigint): StreamEvent {
  const frame = decodeFrame(frameOf(partition, first, next));
  if (!frame.ok) {
    throw new Error(frame.message);
  }
  return { type: "data", frame, waitedMs: 3 };
}

function ranges(first: bigint, next: bigint, items: RangeItem[]): StreamEvent {
  const frame: DecodedFrame = { ok: true, partition: 0, first, next, bytes: 10, items };
  return { type: "data", frame, waitedMs: 1 };
}

const rowsOf = (made: Model): Row[] => made.rows.toArray();

describe("rows", () => {
  test("show records, and gaps, skips, holes and resets as what they are", () => {
    const made = model();
    made.apply(records(0, 0n, 2n), 1);
    made.apply(ranges(2n, 9n, [{ type: "gap", first: 2n, next: 9n, reason: "retention" }]), 2);
    made.apply({ type: "hole", partition: 0, first: 9n, next: 10n, reason: "unexplained" }, 3);
    made.apply(
      { type: "reset", partition: 0, reason: "topic_recreated", newEpoch: true, before: 10n, nextOffset: 0n },
      4,
    );
    expect(rowsOf(made).map((row) => row.type)).toEqual(["note", "record", "record", "gap", "hole", "reset"]);
    expect(made.totals).toMatchObject({ records: 2, lost: 8n });
    expect(made.partitions.list()[0]).toMatchObject({ next: 0n, lost: 8n, resets: 1, records: 2 });
    expect(made.alerts.list()).toMatchObject([
      { level: "warning", text: expect.stringContaining("topic_recreated") as string },
    ]);
  });

  test("skips that touch become one row", () => {
    const made = model();
    for (let at = 0n; at < 5n; at += 1n) {
      made.apply(ranges(at, at + 1n, [{ type: "skip", first: at, next: at + 1n, reason: "no_record" }]), 1);
    }
    expect(rowsOf(made).slice(1)).toMatchObject([{ type: "skip", first: 0n, next: 5n }]);
    made.apply(ranges(5n, 6n, [{ type: "skip", first: 5n, next: 6n, reason: "invalid_protobuf" }]), 1);
    expect(rowsOf(made).length).toBe(3);
  });

  test("count a loss of the connection and a reconnect once each", () => {
    const made = model();
    made.apply({ type: "status", status: { state: "live" } }, 1);
    made.apply(
      { type: "status", status: { state: "waiting", untilMs: 9, attempt: 1, reason: "the connection was lost" } },
      2,
    );
    made.apply({ type: "status", status: { state: "connecting", attempt: 1 } }, 3);
    made.apply(
      { type: "status", status: { state: "waiting", untilMs: 9, attempt: 2, reason: "the connection was lost" } },
      4,
    );
    const notes = rowsOf(made).filter((row) => row.type === "note" && row.level === "warning");
    expect(notes.length).toBe(1);
  });
});

describe("positions", () => {
  test("lag is the distance to the service's end, never negative, unknown when nothing is known", () => {
    const made = model();
    const nextOffsets = new Map([[0, 2n ** 53n + 5n]]);
    made.apply(
      {
        type: "heartbeat",
        heartbeat: { type: "heartbeat", serverTimeMs: 0, nextOffsets, status: "healthy", reasons: [] },
      },
      1,
    );
    const [first] = made.partitions.list();
    expect(first && lagOf(first)).toBe(2n ** 53n + 5n);
    expect(first && lagOf({ ...first, end: 1n, next: 5n })).toBe(0n);
    expect(first && lagOf({ ...first, end: null })).toBeNull();
  });

  test("partitions that are gone after a reconnect disappear", () => {
    const made = model();
    made.apply(
      {
        type: "welcome",
        topic: "t",
        epoch: "e2",
        heartbeatMs: 1000,
        mode: "resume",
        history: null,
        partitions: [start(1, 0n)],
      },
      1,
    );
    expect(made.partitions.list().map((state) => state.partition)).toEqual([1]);
  });
});

test("what the service says of itself is unknown before the first heartbeat and when it is old", () => {
  const pipeline = new Pipeline();
  pipeline.expect(1000);
  expect(pipeline.view(0).state).toBe("unknown");
  pipeline.hear("degraded", ["redis"], 10);
  expect(pipeline.view(2010)).toEqual({ state: "degraded", reasons: ["redis"] });
  expect(pipeline.view(2011).state).toBe("unknown");
});

test("rates follow the monotonic clock and fall to zero in silence", () => {
  const rate = new Rate();
  for (let ms = 0; ms < 20_000; ms += 100) {
    rate.add(5, ms);
  }
  expect(rate.perSecond(20_000)).toBeGreaterThan(44);
  expect(rate.perSecond(20_000)).toBeLessThan(56);
  expect(rate.perSecond(40_000)).toBe(0);
});

describe("runs", () => {
  const touch = (thread: string, change: Partial<RunTouch> = {}): RunTouch => ({
    tenant: "a",
    thread,
    signal: null,
    graph: "",
    node: "",
    events: 1,
    errors: 0,
    ...change,
  });

  test("start, wait, end and start again; equal threads of two tenants are two runs", () => {
    const runs = new Runs(10);
    runs.touch(touch("x", { signal: "started", graph: "g" }), "graph_start", 1);
    runs.touch(touch("x", { signal: "waiting" }), "human_interrupt", 2);
    expect(runs.latest(1)[0]).toMatchObject({ status: "waiting", sawStart: true, graph: "g" });
    runs.touch(touch("x", { signal: "failed", errors: 1 }), "graph_error", 3);
    expect(runs.latest(1)[0]).toMatchObject({ status: "failed", errors: 1, events: 3 });
    runs.touch(touch("x", { signal: "started" }), "graph_start", 4);
    expect(runs.latest(1)[0]).toMatchObject({ status: "running", errors: 0, events: 1, starts: 2 });
    runs.touch({ ...touch("x"), tenant: "b" }, "node_start", 5);
    expect(runs.size).toBe(2);
  });

  test("beyond the bound, the one that was quiet longest goes", () => {
    const runs = new Runs(3);
    for (const thread of ["a", "b", "c", "a", "d"]) {
      runs.touch(touch(thread), "x", 1);
    }
    expect(runs.latest(9).map((run) => run.thread)).toEqual(["d", "a", "c"]);
  });
});

describe("the ring", () => {
  test("keeps the newest within both bounds, with steady indexes", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 300 });
    fc.assert(
      fc.property(
        sizes,
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 400 }),
        (list, maxCount, maxBytes) => {
          const ring = new Ring<{ bytes: number; n: number }>(maxCount, maxBytes);
          for (const [n, bytes] of list.entries()) {
            ring.push({ bytes, n });
            expect(ring.length).toBeLessThanOrEqual(maxCount);
            expect(ring.bytes <= maxBytes || ring.length === 1).toBe(true);
            expect([ring.at(ring.end - 1)?.n, ring.at(ring.first)?.n, ring.at(ring.first - 1)]).toEqual([
              n,
              ring.first,
              undefined,
            ]);
            expect(ring.toArray().map((item) => item.n)).toEqual(
              Array.from({ length: ring.length }, (_, i) => ring.first + i),
            );
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test("survives a long life", () => {
    const ring = new Ring<{ bytes: number; n: number }>(100, 1e9);
    for (let n = 0; n < 50_000; n += 1) {
      ring.push({ bytes: 1, n });
    }
    expect([ring.first, ring.length, ring.bytes, ring.at(49_950)?.n]).toEqual([49_900, 100, 100, 49_950]);
  });
});

describe("the filter", () => {
  const note = (id: number, text: string): Row => ({ type: "note", id, bytes: 1, level: "info", text });

  test("keeps exactly the matching rows while rows come and go", () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 200 }), fc.integer({ min: 1, max: 30 }), (marks, maxCount) => {
        const ring = new Ring<Row>(maxCount, 1e9);
        const filtered = new FilteredRows(ring, (row) => row.type === "note" && row.text === "yes");
        for (const [id, mark] of marks.entries()) {
          ring.push(note(id, mark ? "yes" : "no"));
          if (id % 3 === 0) {
            filtered.refresh();
          }
        }
        filtered.refresh();
        const shown = Array.from({ length: filtered.length }, (_, index) => filtered.at(index)?.id);
        const expected = ring.toArray().filter((row) => row.type === "note" && row.text === "yes");
        expect(shown).toEqual(expected.map((row) => row.id));
      }),
    );
  });

  test("finds records by any of their texts, and never hides a loss", () => {
    const made = model();
    made.apply(records(0, 0n, 1n), 1);
    made.apply(records(1, 0n, 1n), 1);
    made.apply(ranges(1n, 2n, [{ type: "gap", first: 1n, next: 2n, reason: "retention" }]), 2);
    const shown = (text: string) =>
      rowsOf(made)
        .filter(parseFilter(text) ?? (() => true))
        .map((row) => row.type);
    expect(shown("RUN-1 node_start")).toEqual(["note", "record", "gap"]);
    expect(shown("no such thing")).toEqual(["note", "gap"]);
    expect(shown("  ").length).toBe(4);
  });
});
