import { expect, test } from "vitest";
import { attributes, type Body, framed } from "../../testing/messages";
import { decodeRecord } from "./decode";
import { EventType } from "./generated/dashstream_pb";
import { prettyMessage, reindent } from "./pretty";

function pretty(body: Body): string {
  const decoded = decodeRecord(framed(body));
  if (!decoded.ok) {
    throw new Error(decoded.message);
  }
  return prettyMessage(decoded.message);
}

test("enums appear by name and 64-bit numbers with every digit", () => {
  const text = pretty({
    case: "event",
    value: {
      header: { threadId: "t", sequence: 2n ** 64n - 1n },
      eventType: EventType.NODE_START,
      attributes: attributes({ big: 9007199254740993n, name: "x", ratio: 1 }),
    },
  });
  expect(text).toContain('"EVENT_TYPE_NODE_START"');
  expect(text).toContain("18446744073709551615");
  expect(text).toContain('"big": 9007199254740993');
  expect(text).toContain('"name": "x"');
  expect(text).toContain('"ratio": 1.0');
});

test("bytes that hold JSON are shown as JSON, others as hex, both bounded", () => {
  const json = pretty({
    case: "stateDiff",
    value: { fullState: new TextEncoder().encode('{"n":9007199254740993,"f":1.0}') },
  });
  expect(json).toContain('"n": 9007199254740993');
  expect(json).toContain('"f": 1.0');
  const hex = pretty({ case: "stateDiff", value: { stateHash: new Uint8Array(100).fill(255) } });
  expect(hex).toContain(`"${"ff".repeat(64)}… (100 bytes)"`);
});

test("a message of megabytes is cut", () => {
  const text = pretty({
    case: "executionTrace",
    value: { errors: Array.from({ length: 2000 }, () => ({ message: "m".repeat(1000) })) },
  });
  expect(text.length).toBeLessThan(220_000);
  expect(text).toContain("cut: the message is longer");
});

test("JSON text is indented without touching its tokens", () => {
  const source = '{"a":[1,{"b":"x,y:{}\\"["}],"c":{},"d":[]}';
  const out = reindent(source, 0);
  expect(JSON.parse(out)).toEqual(JSON.parse(source));
  expect(out).toBe('{\n  "a": [\n    1,\n    {\n      "b": "x,y:{}\\"["\n    }\n  ],\n  "c": {},\n  "d": []\n}');
});
