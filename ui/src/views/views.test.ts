// The pure parts of the views; what they look like is for the browser tests.

import fc from "fast-check";
import { expect, test } from "vitest";
import { nextIndex } from "./EventList";
import { describeFinding, describeSystemRow } from "./EventRow";
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

test("a finding speaks of the producer, with the size of the gap", () => {
  expect(describeFinding({ kind: "gap", eventIndex: 0, expected: 5n, found: 9n })).toContain("4 missing");
});
