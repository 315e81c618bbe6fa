// The pure parts of the views; what they look like is for the browser tests.

import fc from "fast-check";
import { expect, test } from "vitest";
import type { LoadingView } from "../model/loading";
import type { ConnectionStatus } from "../stream/events";
import { nextIndex } from "./EventList";
import { describeFinding, describeSystemRow } from "./EventRow";
import { parseLocalTime, placeText, timeOfDay, utcOffset } from "./format";
import { progressText } from "./HistoryBar";
import { visibleRange } from "./window";

test("the rows in sight are always among those drawn, and never more than needed", () => {
  fc.assert(
    fc.property(fc.nat(600_000), fc.integer({ min: 1, max: 2000 }), fc.nat(20_000), (top, height, length) => {
      const { from, to } = visibleRange(top, height, 26, length, 10);
      const lastTop = Math.max(0, length * 26 - height);
      const sight = Math.min(top, lastTop);
      expect(from).toBeGreaterThanOrEqual(0);
      expect(to).toBeLessThanOrEqual(length);
      expect(from).toBeLessThanOrEqual(Math.floor(sight / 26));
      expect(to).toBeGreaterThanOrEqual(Math.min(length, Math.floor((sight + height) / 26)));
      expect(to - from).toBeLessThanOrEqual(Math.ceil(height / 26) + 1 + 20 + 1);
    }),
  );
});

test.each([
  ["ArrowDown", 3, 4],
  ["ArrowDown", 9, 9],
  ["ArrowUp", 0, 0],
  ["ArrowUp", -1, 9],
  ["PageDown", 3, 8],
  ["PageUp", 3, 0],
  ["Home", 5, 0],
  ["End", 5, 9],
  ["x", 5, null],
])("%s at row %i leads to %s", (key, at, to) => expect(nextIndex(key, at, 10, 5)).toBe(to));

test("the hour after midnight is 00", () => {
  const ms = new Date(2026, 0, 31, 0, 3, 7, 45).getTime();
  expect(timeOfDay(ms)).toBe("00:03:07.045");
  expect(placeText({ from: "time", timeMs: ms })).toContain("00:03:07");
});

test("an empty list has nowhere to go", () => expect(nextIndex("End", -1, 0, 5)).toBeNull());

test("rows about the stream say partition, range and reason", () => {
  const row = { type: "gap" as const, id: 1, bytes: 0, partition: 3, first: 5n, next: 10n, reason: "retention" };
  expect(describeSystemRow(row)).toEqual({
    title: "gap",
    text: "Partition 3: 5 offsets lost, 5 to 9 (retention)",
    position: "3:5",
  });
  expect(describeSystemRow({ ...row, type: "skip", next: 6n, reason: "no_record" }).text).toBe(
    "Partition 3: 1 offset with nothing to show, 5 (no record)",
  );
  expect(describeSystemRow({ ...row, type: "hole", reason: "unexplained" }).title).toBe("defect");
});

test("rows say where history and live begin, and a reset what it does", () => {
  const base = { id: 1, bytes: 0 };
  const text = (row: Parameters<typeof describeSystemRow>[0]) => describeSystemRow(row).text;
  expect(text({ ...base, type: "history", start: { from: "earliest" } })).toBe(
    "From the beginning on; the list begins anew",
  );
  expect(text({ ...base, type: "live", records: 1234, isAfterHistory: true })).toBe(
    "Live from here on, after 1,234 records of history",
  );
  expect(text({ ...base, type: "live", records: 1, isAfterHistory: false })).toBe(
    "Live from here on; 1 record made up for",
  );
  const reset = { ...base, type: "reset" as const, partition: 3, before: 40n, nextOffset: 40n };
  expect(text({ ...reset, reason: "retention", newEpoch: false })).toBe(
    "Partition 3: the position was moved (retention); goes on at 40",
  );
  expect(text({ ...reset, reason: "topic_recreated", newEpoch: true, nextOffset: 0n })).toBe(
    "Partition 3: offsets start again (topic recreated); goes on at 0 instead of 40",
  );
});

test("the strip says how far history has come, or what it waits for", () => {
  const loading = { history: { from: "earliest" }, sinceMs: 0, records: 5, remaining: 1200n, percent: 42 } as const;
  const text = (change: Partial<LoadingView>, status: ConnectionStatus) =>
    progressText({ ...loading, ...change }, status, 1000);
  expect(text({}, { state: "catching_up" })).toBe("History from the beginning: 42 %, 1,200 left");
  expect(text({ history: null }, { state: "catching_up" })).toBe("Catching up: 42 %, 1,200 left");
  expect(text({ remaining: null, percent: null }, { state: "catching_up" })).toContain("asking the service");
  expect(text({}, { state: "parked", untilMs: 3500, attempt: 1, reason: "" })).toContain("asking again in 3 s");
  expect(text({}, { state: "connecting", attempt: 1 })).toContain("waiting for the connection");
});

test.each([
  ["2026-11-21T14:03", new Date(2026, 10, 21, 14, 3).getTime()],
  ["2026-11-21T14:03:22", new Date(2026, 10, 21, 14, 3, 22).getTime()],
  ["", null],
  ["2026-11-21", null],
  ["1969-01-01T00:00", null],
  ["2026-13-41T00:00", null],
  ["yesterday", null],
])("a local time %j is %s", (text, ms) => expect(parseLocalTime(text)).toBe(ms));

test("the distance from UTC is told as of the time in question", () => {
  expect(utcOffset(0)).toMatch(/^UTC([+-]\d\d:\d\d)?$/);
});

test("a finding speaks of the producer, with the size of the gap", () => {
  expect(describeFinding({ kind: "gap", eventIndex: 0, expected: 5n, found: 9n })).toContain("4 missing");
});
