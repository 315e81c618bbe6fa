import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { frameOf, frameOfValues } from "../../testing/frames";
import { type Body, eventValue, framed } from "../../testing/messages";
import type { ConnectionStatus, Mode, StreamEvent } from "../stream/events";
import { decodeRecord } from "../wire/decode";
import { type DecodedFrame, decodeFrame, type RangeItem } from "../wire/frame";
import { DEFAULT_FRAMING } from "../wire/limits";
import { type RunTouch, summarize } from "../wire/summary";
import { FilteredRows, parseFilter } from "./filter";
import { Model } from "./model";
import { lagOf } from "./partitions";
import { Pipeline } from "./pipeline";
import { Rate } from "./rates";
import { Ring } from "./ring";
import { type Row, recordRow } from "./rows";
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

test("a token is wanted where the service asks for one and has not let the page in", () => {
  const made = model();
  const status = (status: ConnectionStatus) => made.apply({ type: "status", status }, 1);
  const lost = { state: "waiting", untilMs: 9, attempt: 1, reason: "r" } as const;
  const asks = (asksForToken: boolean) =>
    made.apply({ type: "version", version: { namespace: null, framing: DEFAULT_FRAMING, asksForToken } }, 1);
  status({ state: "connecting", attempt: 0 });
  status(lost);
  expect(made.wantsToken).toBe(false);
  asks(true);
  expect(made.wantsToken).toBe(true);
  status({ state: "catching_up" });
  expect(made.wantsToken).toBe(false);
  // A lost connection says nothing of the token; a refused one does.
  status(lost);
  expect(made.wantsToken).toBe(false);
  status({ state: "connecting", attempt: 1 });
  status(lost);
  expect(made.wantsToken).toBe(true);
  status({ state: "live" });
  status({ state: "stopped", reason: "the token that was shown has ended" });
  expect(made.wantsToken).toBe(true);
  asks(false);
  expect(made.wantsToken).toBe(false);
});

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

  test("hold every record in the order of the log, whatever its number: equal, falling, missing or huge", () => {
    const sequences = [9n, 10n, 9n, 0n, 0n, 1000n, 99n, 2n ** 53n + 1n, 1n, 1n];
    const frame = decodeFrame(
      frameOfValues(
        0,
        0n,
        sequences.map((sequence) => eventValue("run", sequence)),
      ),
    );
    if (!frame.ok) {
      throw new Error(frame.message);
    }
    const made = model();
    made.apply({ type: "data", frame, waitedMs: 1 }, 1);
    const shown = rowsOf(made).filter((row) => row.type === "record");
    expect(shown.map((row) => row.summary?.sequence)).toEqual(sequences);
    expect(shown.map((row) => row.offset)).toEqual(sequences.map((_, at) => BigInt(at)));
    expect(made.runs.latest(9)).toMatchObject([{ thread: "run", events: sequences.length }]);

    // A reset within the same log leaves the runs; those of a log that is gone are no longer under way.
    for (const [newEpoch, runs] of [
      [false, 1],
      [true, 0],
    ] as const) {
      made.apply({ type: "reset", partition: 0, reason: "r", newEpoch, before: 10n, nextOffset: 0n }, 2);
      expect(made.runs.size).toBe(runs);
    }
  });

  const OUTER = 1_763_700_000_000_000n;
  const INNER = OUTER - 60_000_000n;
  const event = (timestampUs: bigint): Body => ({ case: "event", value: { header: { threadId: "x", timestampUs } } });
  const batch: Body = {
    case: "eventBatch",
    value: { header: { timestampUs: OUTER }, events: [{ header: { threadId: "x", timestampUs: INNER } }] },
  };
  test.each<[string, Body, number, number | null, number | null]>([
    ["microseconds of the producer, to the millisecond", event(OUTER + 123_999n), 7, 1_763_700_000_123, 7],
    ["those of Kafka where the producer has none", event(0n), 1_763_700_000_456, null, 1_763_700_000_456],
    ["none where nobody has one", event(0n), 0, null, null],
    ["none before 1970", event(-5_000_000n), -1, null, null],
    ["none that no clock could show", event(2n ** 63n - 1n), Number.MAX_SAFE_INTEGER, null, null],
    ["that of a batch, not of an event in it", batch, 7, 1_763_700_000_000, 7],
  ])("show as time %s", (_, body, timestampMs, producerMs, kafkaMs) => {
    const value = framed(body);
    const read = decodeRecord(value);
    const outcome = read.ok ? { ok: true as const, summary: summarize(read.message) } : read;
    const row = recordRow(1, 0, { type: "record", offset: 0n, timestampMs, value, findings: [], outcome });
    expect(row).toMatchObject({ producerMs, kafkaMs, timeMs: producerMs ?? kafkaMs });
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

describe("a load of history", () => {
  const starts = (from: bigint, next: bigint) => [
    { partition: 0, from, low: 0n, next },
    { partition: 1, from: 0n, low: 0n, next: 0n },
  ];
  const welcome = (mode: Mode, from: bigint, next: bigint): StreamEvent => ({
    type: "welcome",
    topic: "t",
    epoch: "e",
    heartbeatMs: 1000,
    mode,
    history: mode === "history" ? { from: "earliest" } : null,
    partitions: starts(from, next),
  });
  const gap: StreamEvent = ranges(3n, 9n, [{ type: "gap", first: 3n, next: 9n, reason: "retention" }]);
  const reset = (reason: string, newEpoch: boolean): StreamEvent => ({
    type: "reset",
    partition: 0,
    reason,
    newEpoch,
    before: 9n,
    nextOffset: newEpoch ? 0n : 9n,
  });
  const waiting: StreamEvent = {
    type: "status",
    status: { state: "waiting", untilMs: 9, attempt: 1, reason: "the connection was lost" },
  };

  // Frames in, rows and progress out. Each begins with a list that has live records already.
  const table: [string, StreamEvent[], string[], object | null][] = [
    [
      "is announced before it is answered",
      [{ type: "wish", history: { from: "earliest" } }],
      ["note", "record", "record"],
      { records: 0, remaining: null, percent: null },
    ],
    ["begins the list anew", [welcome("history", 0n, 40n)], ["history"], { records: 0, remaining: 40n, percent: 0 }],
    [
      "comes on with what is applied",
      [welcome("history", 0n, 40n), records(0, 0n, 10n)],
      ["history", ...Array<string>(10).fill("record")],
      { records: 10, remaining: 30n, percent: 25 },
    ],
    [
      "believes the service about what is left, and never goes back",
      [welcome("history", 0n, 40n), records(0, 0n, 10n), { type: "progress", remaining: 90n }],
      ["history", ...Array<string>(10).fill("record")],
      { records: 10, remaining: 90n, percent: 25 },
    ],
    [
      "goes on in parts without a word",
      [welcome("history", 0n, 40n), records(0, 0n, 3n), welcome("on", 3n, 43n)],
      ["history", "record", "record", "record"],
      { records: 3, remaining: 40n, percent: 7 },
    ],
    [
      "says a gap of retention and where it goes on",
      [welcome("history", 0n, 9n), records(0, 0n, 3n), gap, reset("retention", false)],
      ["history", "record", "record", "record", "gap", "reset"],
      { records: 3, remaining: 0n, percent: 99 },
    ],
    [
      "does not know what is left when offsets start again",
      [welcome("history", 0n, 40n), records(0, 0n, 1n), reset("topic_recreated", true)],
      ["history", "record", "reset"],
      { records: 1, remaining: null, percent: null },
    ],
    [
      "outlives a lost connection",
      [
        { type: "status", status: { state: "catching_up" } },
        welcome("history", 0n, 40n),
        records(0, 0n, 1n),
        waiting,
        welcome("resume", 1n, 40n),
      ],
      ["history", "record", "note", "note"],
      { history: { from: "earliest" }, records: 1, remaining: 39n, percent: 2 },
    ],
    [
      "ends with where live begins",
      [welcome("history", 0n, 2n), records(0, 0n, 2n), { type: "caught_up" }],
      ["history", "record", "record", "live"],
      null,
    ],
    [
      "ends also when there was nothing",
      [welcome("history", 0n, 0n), { type: "caught_up" }],
      ["history", "live"],
      null,
    ],
    [
      "that is given up names what is left out",
      [
        welcome("history", 0n, 40n),
        records(0, 0n, 1n),
        { type: "wish", history: null },
        welcome("jump", 40n, 40n),
        { type: "hole", partition: 0, first: 1n, next: 40n, reason: "jumped" },
        { type: "caught_up" },
      ],
      ["history", "record", "note", "hole"],
      null,
    ],
    [
      "is not what a reconnect is, which ends with where live begins if it brought something",
      [welcome("resume", 2n, 4n), records(0, 2n, 4n), { type: "caught_up" }],
      ["note", "record", "record", "note", "record", "record", "live"],
      null,
    ],
    [
      "is not what a reconnect is, which says nothing of live if nothing was missed",
      [welcome("resume", 2n, 2n), { type: "caught_up" }],
      ["note", "record", "record", "note"],
      null,
    ],
  ];
  test.each(table)("%s", (_, events, rows, loading) => {
    const made = model();
    made.apply(records(0, 0n, 2n), 1);
    for (const event of events) {
      made.apply(event, 2);
    }
    expect(rowsOf(made).map((row) => row.type)).toEqual(rows);
    const view = made.loading?.view() ?? null;
    if (loading === null) {
      expect(view).toBeNull();
    } else {
      expect(view).toMatchObject(loading);
    }
  });

  test("counts what is shown from its beginning on, runs and partitions included", () => {
    const made = model();
    made.apply(records(0, 0n, 5n), 1);
    made.apply(welcome("history", 2n, 5n), 2);
    expect([made.totals.records, made.runs.size, made.rows.forgotten]).toEqual([0, 0, 0]);
    made.apply(records(0, 2n, 5n), 3);
    expect(made.totals.records).toBe(3);
    expect(made.partitions.list()[0]).toMatchObject({ next: 5n, records: 3 });
  });

  test("keeps no more rows than the list holds, and counts those that it has not kept", () => {
    const made = model();
    made.apply(welcome("history", 0n, 500n), 2);
    made.apply(records(0, 0n, 500n), 3);
    expect([made.rows.length, made.rows.forgotten]).toEqual([100, 401]);
  });
});

describe("apply lag", () => {
  const heartbeat = (end: bigint): StreamEvent => ({
    type: "heartbeat",
    heartbeat: {
      type: "heartbeat",
      nextOffsets: new Map([[0, end]]),
      status: "healthy",
      reasons: [],
    },
  });

  test("is what the page knows of and has not applied, and for how long", () => {
    const made = model();
    const lag = (nowMs: number) => made.partitions.applyLag(nowMs);
    expect(lag(50)).toEqual({ offsets: 0n, ms: 0 });
    made.apply(heartbeat(4n), 100);
    made.apply(heartbeat(6n), 300);
    expect(lag(500)).toEqual({ offsets: 6n, ms: 400 });
    made.apply(records(0, 0n, 3n), 510);
    expect(lag(510)).toEqual({ offsets: 3n, ms: 410 });
    // The oldest announcement is met: the newer one counts.
    made.apply(records(0, 3n, 5n), 520);
    expect(lag(520)).toEqual({ offsets: 1n, ms: 220 });
    made.apply(records(0, 5n, 8n), 530);
    expect(lag(900)).toEqual({ offsets: 0n, ms: 0 });
  });

  test("ends with a reset and with a jump", () => {
    const reset: StreamEvent = {
      type: "reset",
      partition: 0,
      reason: "topic_recreated",
      newEpoch: true,
      before: 0n,
      nextOffset: 0n,
    };
    const jump: StreamEvent = { type: "hole", partition: 0, first: 0n, next: 9n, reason: "jumped" };
    for (const end of [reset, jump]) {
      const made = model();
      made.apply(heartbeat(9n), 100);
      made.apply(end, 200);
      expect(made.partitions.applyLag(300)).toEqual({ offsets: 0n, ms: 0 });
      expect(made.partitions.list()[0]?.lost).toBe(0n);
    }
  });
});

describe("positions", () => {
  test("lag is the distance to the service's end, never negative, unknown when nothing is known", () => {
    const made = model();
    const nextOffsets = new Map([[0, 2n ** 53n + 5n]]);
    made.apply(
      {
        type: "heartbeat",
        heartbeat: { type: "heartbeat", nextOffsets, status: "healthy", reasons: [] },
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
    key: `${change.tenant ?? "a"} ${thread}`,
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
    expect(runs.latest(1)[0]).toMatchObject({ status: "running", errors: 0, events: 1 });
    runs.touch(touch("x", { tenant: "b" }), "node_start", 5);
    expect(runs.size).toBe(2);
  });

  test("are as new as what came last of them, whatever the clocks of producers say", () => {
    const runs = new Runs(2);
    const hour = 3_600_000;
    for (const [thread, timeMs] of [
      ["a", 9 * hour],
      ["b", 1 * hour],
      ["a", 0],
      ["c", 2 * hour],
    ] as const) {
      runs.touch(touch(thread), "x", timeMs);
    }
    expect(runs.latest(9).map((run) => run.thread)).toEqual(["c", "a"]);
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
