// The small pure parts of the client.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { DecodedFrame } from "../wire/frame";
import { CLOSE, onClose, retryDelayMs } from "./backoff";
import { CursorStore, formatStored, parseStored } from "./cursor_store";
import { subprotocols } from "./environment";
import { Inbox } from "./inbox";
import { judge } from "./liveness";
import { Positions } from "./positions";
import { clip } from "./session";

describe("close codes", () => {
  test("4000 to 4499 and unknown ones are retried, 4500 to 4999 are not", () => {
    for (let code = 4000; code < 5000; code += 1) {
      expect(onClose(code, "").action).toBe(code < 4500 ? "retry" : "stop");
    }
    for (const code of [1000, 1005, 1006, 1011, 1012, 1013, 1015]) {
      expect(onClose(code, "").action).toBe("retry");
    }
    expect(onClose(1001, "").action).toBe("retry_spread");
  });

  test("that the page sends are allowed to browsers", () => {
    for (const code of Object.values(CLOSE)) {
      expect(code === 1000 || (code >= 3000 && code <= 4999)).toBe(true);
    }
  });
});

test("a token is offered behind the protocol, and only where there is one", () => {
  expect(subprotocols(null)).toEqual(["dashstream.v2"]);
  expect(subprotocols("")).toEqual(["dashstream.v2"]);
  expect(subprotocols("a.b.c")).toEqual(["dashstream.v2", "dashstream.bearer.a.b.c"]);
});

test("the retry delay grows to its cap and no further, with jitter, for any attempt", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1_000_000 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (attempt, random) => {
        const delay = retryDelayMs(attempt, random);
        return delay >= 250 && delay <= 30_000 && delay <= retryDelayMs(attempt + 1, 0.999);
      },
    ),
  );
});

describe("a stored cursor", () => {
  const offsets = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
  const cursors = fc.record({
    epoch: fc.string({ minLength: 1, maxLength: 40 }),
    next: fc
      .uniqueArray(fc.tuple(fc.nat(5000), offsets), { minLength: 1, selector: ([partition]) => partition })
      .map((list) => new Map(list)),
  });

  test("comes back with every digit", () => {
    fc.assert(
      fc.property(cursors, (cursor) => {
        const back = parseStored(formatStored(cursor, 1));
        expect(back?.epoch).toBe(cursor.epoch);
        expect(new Map([...(back?.next ?? [])].sort())).toEqual(new Map([...cursor.next].sort()));
      }),
    );
  });

  test("is refused as a whole when any part is broken", () => {
    fc.assert(fc.property(fc.string({ maxLength: 200 }), (text) => parseStored(text) === null));
    fc.assert(fc.property(fc.json(), (text) => parseStored(text) === null));
  });

  test("of this tab is preferred to that of the browser", () => {
    const tab = new Map<string, string>();
    const browser = new Map<string, string>();
    const storage = (map: Map<string, string>) => ({
      getItem: (key: string) => map.get(key) ?? null,
      setItem: (key: string, value: string) => void map.set(key, value),
      removeItem: (key: string) => void map.delete(key),
    });
    const store = new CursorStore([storage(tab), storage(browser)]);
    store.save("n", { epoch: "e", next: new Map([[0, 5n]]) }, 1, "tab");
    expect(browser.size).toBe(0);
    new CursorStore([storage(browser)]).save("n", { epoch: "e", next: new Map([[0, 9n]]) }, 1, "browser");
    expect(store.load("n").cursor?.next.get(0)).toBe(5n);
    tab.clear();
    expect(store.load("n").cursor?.next.get(0)).toBe(9n);
  });
});

test("positions accept exactly a continuous stream", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 60n }), fc.bigInt({ min: -5n, max: 5n }), (at, shift) => {
      const positions = new Positions();
      positions.enterEpoch("e");
      positions.place(1, at);
      const first = at + shift;
      return (positions.check(1, first, first + 3n) === null) === (shift === 0n);
    }),
  );
});

test("the inbox hands out in order of arrival, in whatever order frames are decoded", () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { maxLength: 600 }), fc.infiniteStream(fc.nat()), (kinds, picks) => {
      const inbox = new Inbox();
      const pending: number[] = [];
      for (const [id, isFrame] of kinds.entries()) {
        if (isFrame) {
          inbox.pushFrame(id, 10, id);
          pending.push(id);
        } else {
          inbox.pushControl({ type: "partition_added", partition: id, from: 0n });
        }
      }
      const taken: number[] = [];
      const takeAll = () => {
        for (let ready = inbox.take(); ready !== null; ready = inbox.take()) {
          taken.push(
            ready.type === "data"
              ? ready.arrivedMs
              : ready.frame.type === "partition_added"
                ? ready.frame.partition
                : -1,
          );
        }
      };
      takeAll();
      while (pending.length > 0) {
        const index = Number(picks.next().value) % pending.length;
        inbox.resolve(pending.splice(index, 1)[0] ?? -1, { ok: false, message: "" });
        takeAll();
      }
      expect(taken).toEqual([...kinds.keys()]);
      expect([inbox.length, inbox.bytes]).toEqual([0, 0]);
    }),
  );
});

test("a clipped frame covers exactly the rest", () => {
  const frame = {
    ok: true,
    partition: 0,
    first: 0n,
    next: 10n,
    bytes: 1,
    items: [
      { type: "skip", first: 0n, next: 4n, reason: "filtered" },
      { type: "gap", first: 4n, next: 10n, reason: "retention" },
    ],
  } satisfies DecodedFrame;
  for (let from = 0n; from <= 10n; from += 1n) {
    const rest = clip(frame, from);
    let at = from;
    for (const item of rest.items) {
      expect(item.type !== "record" && item.first).toBe(at);
      at = item.type === "record" ? at + 1n : item.next;
    }
    expect(at).toBe(10n);
  }
});

describe("liveness", () => {
  const times = {
    nowMs: 0,
    openedMs: 0,
    heardMs: 0,
    sentMs: 0,
    progressMs: 0,
    heartbeatMs: 5000,
    waiting: 0,
    askedMs: null,
  };
  test.each([
    ["a quiet but living connection", { nowMs: 4000 }, "none"],
    ["silence on our side", { nowMs: 5001 }, "ping"],
    ["silence on theirs", { nowMs: 10_001 }, "fail"],
    ["no welcome yet", { nowMs: 39_000, heartbeatMs: null }, "none"],
    ["no welcome at all", { nowMs: 40_001, heartbeatMs: null }, "fail"],
    ["a decoder that stands still", { nowMs: 70_000, heardMs: 70_000, sentMs: 70_000, waiting: 1 }, "fail"],
    ["a question without an answer", { nowMs: 40_001, heardMs: 40_000, sentMs: 40_000, askedMs: 0 }, "fail"],
    [
      "a question behind what is still decoded",
      { nowMs: 40_001, heardMs: 40_000, sentMs: 40_000, progressMs: 40_000, askedMs: 0, waiting: 1 },
      "none",
    ],
    ["nothing to decode for long", { nowMs: 70_000, heardMs: 70_000, sentMs: 70_000 }, "none"],
  ])("%s", (_, change, action) => expect(judge({ ...times, ...change }).action).toBe(action));
});
