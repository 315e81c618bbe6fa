import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { eventValue } from "../../testing/messages";
import { decodeFrame } from "./frame";
import { FindingKind, FrameSchema, GapReason, type ItemSchema, SkipReason } from "./generated/stream_pb";

type ItemShape = MessageInitShape<typeof ItemSchema>;

function encode(first: bigint, next: bigint, items: ItemShape[], partition = 0): ArrayBuffer {
  const bytes = toBinary(FrameSchema, create(FrameSchema, { partition, firstOffset: first, nextOffset: next, items }));
  return bytes.slice().buffer;
}

const record = (offset: bigint, value = eventValue("t", 1n)): ItemShape => ({
  kind: { case: "record", value: { offset, value } },
});
const skip = (firstOffset: bigint, nextOffset: bigint, reason = SkipReason.NO_RECORD): ItemShape => ({
  kind: { case: "skip", value: { firstOffset, nextOffset, reason } },
});
const gap = (firstOffset: bigint, nextOffset: bigint): ItemShape => ({
  kind: { case: "gap", value: { firstOffset, nextOffset, reason: GapReason.RETENTION } },
});

test("a frame gives its items in order, with reasons and findings by name", () => {
  const finding = { kind: FindingKind.PRODUCER_RESTART, eventIndex: 2, expected: 7n, found: 1n };
  const frame = decodeFrame(
    encode(4n, 20n, [
      gap(4n, 9n),
      {
        kind: {
          case: "record",
          value: { offset: 9n, timestampMs: 5n, value: eventValue("t", 3n), findings: [finding] },
        },
      },
      skip(10n, 20n, SkipReason.INVALID_PROTOBUF),
    ]),
  );
  expect(frame).toMatchObject({
    ok: true,
    first: 4n,
    next: 20n,
    items: [
      { type: "gap", first: 4n, next: 9n, reason: "retention" },
      { type: "record", offset: 9n, timestampMs: 5, findings: [{ ...finding, kind: "producer_restart" }] },
      { type: "skip", first: 10n, next: 20n, reason: "invalid_protobuf" },
    ],
  });
});

test("a record that cannot be read is an item with its reason, and the others stay", () => {
  const frame = decodeFrame(encode(0n, 2n, [record(0n, new Uint8Array([9])), record(1n)]));
  expect(frame).toMatchObject({
    ok: true,
    items: [{ outcome: { ok: false, kind: "unknown_framing" } }, { outcome: { ok: true } }],
  });
});

test("values are views, so that they move with the buffer", () => {
  const buffer = encode(0n, 1n, [record(0n)]);
  const frame = decodeFrame(buffer);
  expect(frame.ok && frame.items[0]?.type === "record" && frame.items[0].value.buffer).toBe(buffer);
});

describe("a frame that does not cover its range exactly once is refused", () => {
  const cases: [string, ArrayBuffer][] = [
    ["a hole before", encode(0n, 2n, [record(1n)])],
    ["a hole between", encode(0n, 3n, [record(0n), record(2n)])],
    ["a hole after", encode(0n, 3n, [record(0n), record(1n)])],
    ["an overlap", encode(0n, 2n, [record(0n), skip(0n, 2n)])],
    ["an item beyond", encode(0n, 1n, [record(0n), record(1n)])],
    ["an empty item", encode(0n, 0n, [skip(0n, 0n)])],
    ["an item that runs backwards", encode(0n, 1n, [skip(0n, -1n)])],
    ["an item of an unknown kind", encode(0n, 1n, [{}])],
    ["no items", encode(0n, 1n, [])],
    ["a range that runs backwards", encode(5n, 4n, [])],
    ["a negative offset", encode(-1n, 0n, [record(-1n)])],
    ["garbage", new Uint8Array([0xff, 0xff]).buffer],
  ];
  test.each(cases)("%s", (_, buffer) => expect(decodeFrame(buffer).ok).toBe(false));
});

test("offsets beyond 2^53 stay exact", () => {
  const at = 2n ** 53n + 1n;
  expect(decodeFrame(encode(at, at + 1n, [record(at)]))).toMatchObject({
    first: at,
    next: at + 1n,
    items: [{ offset: at }],
  });
});

test("any split of a range into items is accepted, and any shifted item is not", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(lengths, fc.nat(), fc.constantFrom(-1n, 1n), (sizes, pick, shift) => {
      let at = 100n;
      const items = sizes.map((size) => {
        const item = { first: at, next: at + BigInt(size) };
        at = item.next;
        return item;
      });
      const shape = (list: typeof items) =>
        encode(
          100n,
          at,
          list.map((item) => skip(item.first, item.next)),
        );
      const moved = items.map((item, index) =>
        index === pick % items.length ? { first: item.first + shift, next: item.next } : item,
      );
      return decodeFrame(shape(items)).ok && !decodeFrame(shape(moved)).ok;
    }),
  );
});

test("ten thousand damaged frames are answered one by one, and a good one is read as before", () => {
  const zstdValue = new Uint8Array([1, ...Buffer.from("KLUv/WA1AI0AAFAKsgIKrwIirAJhAQAoKkAC", "base64")]);
  const good = new Uint8Array(encode(0n, 4n, [record(0n), record(1n, zstdValue), skip(2n, 3n), gap(3n, 4n)]));
  const asBefore = decodeFrame(good.slice().buffer);
  expect(asBefore.ok && asBefore.items[1]).toMatchObject({ outcome: { ok: true } });
  const damage = fc.record({
    what: fc.constantFrom("flip" as const, "cut" as const, "insert" as const, "repeat" as const),
    at: fc.nat(good.length - 1),
    byte: fc.integer({ min: 0, max: 255 }),
  });
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 4 }), (damages) => {
      let bytes = [...good];
      for (const { what, at, byte } of damages) {
        const head = bytes.slice(0, at);
        const tail = bytes.slice(at);
        const damaged = {
          flip: [...head, byte, ...tail.slice(1)],
          cut: head,
          insert: [...head, byte, ...tail],
          repeat: [...head, ...tail, ...tail],
        };
        bytes = damaged[what];
      }
      // It does not throw, and what it says can leave a worker.
      structuredClone(decodeFrame(new Uint8Array(bytes).buffer));
    }),
    { numRuns: 10_000 },
  );
  expect(decodeFrame(good.slice().buffer)).toEqual(asBefore);
});
