import { describe, expect, test } from "vitest";
import { parseControl } from "./control";
import { buildApplied, buildHello, buildResume } from "./hello";
import { cut, parseOffset, parsePartition } from "./numbers";

const WELCOME = {
  type: "welcome",
  protocol: "dashstream.v2",
  session: "s",
  epoch: "e",
  topic: "t",
  resumeNamespace: "n",
  heartbeatMs: 5000,
  idleTimeoutMs: 60000,
  partitions: { "0": { from: "9007199254740993", low: "1", next: "9223372036854775807" } },
};

function parse(frame: unknown) {
  return parseControl(JSON.stringify(frame));
}

test("welcome keeps 64-bit offsets exactly", () => {
  const parsed = parse(WELCOME);
  expect(parsed.ok && parsed.frame?.type === "welcome" && parsed.frame.partitions.get(0)).toEqual({
    from: 9007199254740993n,
    low: 1n,
    next: 9223372036854775807n,
  });
});

describe("a frame that breaks the protocol is refused", () => {
  const cases: [string, unknown][] = [
    ["a list", []],
    ["null", null],
    ["welcome without an epoch", { ...WELCOME, epoch: undefined }],
    ["welcome without a namespace", { ...WELCOME, resumeNamespace: "" }],
    ["welcome with a negative offset", { ...WELCOME, partitions: { "0": { from: "-1" } } }],
    ["welcome with a fraction", { ...WELCOME, partitions: { "0": { from: 1.5 } } }],
    ["welcome with a named partition", { ...WELCOME, partitions: { x: { from: "1" } } }],
    ["cursor_reset without an offset", { type: "cursor_reset", partition: 0, reason: "retention" }],
    ["cursor_reset without a partition", { type: "cursor_reset", nextOffset: "1" }],
    ["partition_added without an offset", { type: "partition_added", partition: 4 }],
    ["replay_progress without what remains", { type: "replay_progress", page: 1, percent: 5 }],
    ["replay_progress with a number that is not exact", { type: "replay_progress", remaining: 2 ** 53 }],
    ["heartbeat with an offset over 2^63-1", { type: "heartbeat", nextOffsets: { "0": "9223372036854775808" } }],
  ];
  test.each(cases)("%s", (_, frame) => expect(parse(frame).ok).toBe(false));
  test("no JSON", () => expect(parseControl("{").ok).toBe(false));
  test("a frame of many megabytes", () => expect(parseControl(" ".repeat(5_000_000)).ok).toBe(false));
});

test("unknown types and fields are ignored", () => {
  expect(parse({ type: "weather", x: 1 })).toMatchObject({ ok: true, frame: null });
  expect(parse({ ...WELCOME, later: true }).ok).toBe(true);
});

test("a heartbeat without a status is heard and says nothing", () => {
  expect(parse({ type: "heartbeat", serverTimeMs: 1, nextOffsets: {} })).toMatchObject({
    ok: true,
    frame: { type: "heartbeat", status: "", reasons: [] },
  });
});

describe("hello", () => {
  const read = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;

  test("asks for the newest on a first visit", () => {
    expect(read(buildHello({ from: "latest" }))).toMatchObject({ type: "hello", from: "latest" });
    expect(read(buildHello({ from: "latest" }))).not.toHaveProperty("lastOffsetsByPartition");
  });

  test("carries last applied offsets as decimal strings, with their epoch, and begins unknown partitions at their start", () => {
    const next = new Map([
      [0, 2n ** 53n + 2n],
      [3, 1n],
    ]);
    expect(read(buildHello({ from: "cursor", cursor: { epoch: "e", next } }))).toMatchObject({
      from: "cursor",
      default: "earliest",
      epoch: "e",
      lastOffsetsByPartition: { "0": "9007199254740993", "3": "0" },
    });
  });

  test("says of a partition of which nothing was applied that it stands before its first offset", () => {
    const start = { from: "cursor", cursor: { epoch: "e", next: new Map([[0, 0n]]) } } as const;
    expect(read(buildHello(start))).toMatchObject({ from: "cursor", lastOffsetsByPartition: { "0": "-1" } });
    expect(read(buildResume(start))).toMatchObject({ type: "resume", lastOffsetsByPartition: { "0": "-1" } });
  });

  test("names history by its beginning or by a time in whole milliseconds, and no position", () => {
    expect(read(buildResume({ from: "earliest" }))).toEqual({ type: "resume", from: "earliest" });
    const time = read(buildResume({ from: "time", timeMs: 1_763_700_000_123.9 }));
    expect(time).toEqual({ type: "resume", from: "time", time: "1763700000123" });
  });

  test("applied reports last applied offsets", () => {
    expect(buildApplied(new Map([[2, 10n]]))).toBe('{"type":"applied","offsets":{"2":"9"}}');
  });
});

describe("numbers at the border", () => {
  test.each([
    ["0", 0n],
    ["9223372036854775807", 2n ** 63n - 1n],
    [7, 7n],
  ])("%s is an offset", (text, value) => expect(parseOffset(text)).toBe(value));
  test.each([
    "",
    "-1",
    "01",
    "1.0",
    "1e3",
    " 1",
    "0x1",
    "9223372036854775808",
    "9".repeat(1000),
    2 ** 53,
    -1,
    null,
    {},
  ])("%j is no offset", (value) => expect(parseOffset(value)).toBeNull());
  test.each(["-1", "x", "2147483648", "", "1e2", 1.5, null])("%j is no partition", (value) =>
    expect(parsePartition(value)).toBeNull(),
  );
  test("a cut never splits a character", () => {
    for (let length = 1; length < 8; length += 1) {
      expect(cut("a😀b😀c", length).isWellFormed()).toBe(true);
    }
  });
});
