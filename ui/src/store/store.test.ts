import { expect, test } from "vitest";
import { frameOf } from "../../testing/frames";
import { decodeFrame } from "../wire/frame";
import { Store } from "./store";

function setUp(maxRows = 1000) {
  const frames: (() => void)[] = [];
  let now = 0;
  const store = new Store(
    { now: () => now, requestFrame: (action) => void frames.push(action), every: () => undefined },
    { maxRows, maxRowBytes: 1e9, maxRuns: 10 },
  );
  const draw = () => {
    now += 16;
    for (const frame of frames.splice(0)) {
      frame();
    }
  };
  let next = 0n;
  store.apply({
    type: "welcome",
    topic: "t",
    epoch: "e",
    heartbeatMs: 1000,
    mode: "first",
    history: null,
    partitions: [{ partition: 0, from: 0n, low: 0n, next: 0n }],
  });
  const receive = (count: number) => {
    const frame = decodeFrame(frameOf(0, next, next + BigInt(count)));
    next += BigInt(count);
    if (frame.ok) {
      store.apply({ type: "data", frame, waitedMs: 0 });
    }
  };
  const offsets = () => {
    const { rows } = store.getSnapshot();
    const found: bigint[] = [];
    for (let index = 0; index < rows.length; index += 1) {
      const row = rows.at(index);
      if (row?.type === "record") {
        found.push(row.offset);
      }
    }
    return found;
  };
  return { store, frames, draw, receive, offsets };
}

test("many events are one commit per drawn frame", () => {
  const { store, frames, draw, receive } = setUp();
  let commits = 0;
  store.subscribe(() => {
    commits += 1;
  });
  for (let i = 0; i < 50; i += 1) {
    receive(2);
  }
  expect([frames.length, commits]).toEqual([1, 0]);
  draw();
  expect([commits, store.getSnapshot().totals.records]).toEqual([1, 100]);
});

test("a snapshot does not change between commits", () => {
  const { store, draw, receive } = setUp();
  draw();
  const before = store.getSnapshot();
  receive(3);
  expect(store.getSnapshot()).toBe(before);
  expect(before.totals.records).toBe(0);
});

test("a pause freezes the view, not the stream, and continuing leaves no hole", () => {
  const { store, draw, receive, offsets } = setUp();
  receive(3);
  draw();
  store.pause();
  receive(5);
  draw();
  expect(offsets()).toEqual([0n, 1n, 2n]);
  expect(store.getSnapshot()).toMatchObject({ waitingRows: 5, totals: { records: 8 } });
  store.resume();
  expect(offsets()).toEqual([0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n]);
  expect(store.getSnapshot().waitingRows).toBeNull();
});

test("a paused view keeps its rows although the list forgets them, also through a filter", () => {
  const { store, draw, receive, offsets } = setUp(10);
  receive(5);
  draw();
  store.pause();
  receive(40);
  store.setFilter("run-0");
  expect(offsets()).toEqual([0n, 1n, 2n, 3n, 4n]);
  store.resume();
  expect(offsets().at(-1)).toBe(44n);
  expect(store.getSnapshot().forgotten).toBeGreaterThan(0);
});

test("a filter follows the stream", () => {
  const { store, draw, receive, offsets } = setUp();
  store.setFilter("0:4");
  receive(3);
  draw();
  expect(offsets()).toEqual([]);
  receive(3);
  draw();
  expect(offsets()).toEqual([4n]);
});
