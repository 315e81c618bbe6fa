import { Buffer } from "node:buffer";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { eventValue, framed } from "../../testing/messages";
import { decodeRecord } from "./decode";
import { type AttributeValue, AttributeValueSchema, DashStreamMessageSchema } from "./generated/dashstream_pb";
import { DEFAULT_FRAMING } from "./limits";

function outcome(value: Uint8Array, framing = DEFAULT_FRAMING): string {
  const result = decodeRecord(value, framing);
  return result.ok ? "ok" : result.kind;
}

describe("every kind of unreadable value has its own name", () => {
  const cases: [string, Uint8Array, string][] = [
    ["no value", new Uint8Array(), "payload_missing"],
    ["over the limit", new Uint8Array(DEFAULT_FRAMING.maxPayloadBytes + 2), "payload_too_large"],
    ["zstd garbage", new Uint8Array([1, 2, 3]), "decompression_failed"],
    [
      "a bomb",
      new Uint8Array([1, 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]),
      "decompressed_too_large",
    ],
    ["protobuf garbage", new Uint8Array([0, 0xff, 0xff]), "invalid_protobuf"],
    ["the framing byte alone", new Uint8Array([0]), "invalid_protobuf"],
    ["text that is no UTF-8", new Uint8Array([0, 0x0a, 4, 0x1a, 2, 0xc3, 0x28]), "invalid_protobuf"],
    [
      "a newer schema",
      framed({ case: "event", value: { header: { threadId: "t", schemaVersion: 2 } } }),
      "schema_version",
    ],
  ];
  test.each(cases)("%s", (_, value, kind) => expect(outcome(value)).toBe(kind));

  test("each first byte but the two of the contract", () => {
    for (let byte = 2; byte < 256; byte += 1) {
      const value = eventValue("t", 1n);
      value[0] = byte;
      expect(outcome(value)).toBe("unknown_framing");
    }
  });

  test("nesting without end", () => {
    let nested: AttributeValue = create(AttributeValueSchema);
    for (let depth = 0; depth < 300; depth += 1) {
      nested = create(AttributeValueSchema, { value: { case: "arrayValue", value: { values: [nested] } } });
    }
    const value = framed({ case: "event", value: { header: { threadId: "t" }, attributes: { deep: nested } } });
    expect(outcome(value)).toBe("invalid_protobuf");
  });
});

test("64-bit numbers keep every digit", () => {
  for (const sequence of [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 64n - 1n]) {
    const result = decodeRecord(framed({ case: "event", value: { header: { threadId: "t", sequence } } }));
    expect(result.ok && result.message.message.case === "event" && result.message.message.value.header?.sequence).toBe(
      sequence,
    );
  }
});

test("a compressed value reads like a plain one", () => {
  // `event { header { thread_id: "aaa…" } }`, 300 letters, made by the zstd command line tool.
  const plain = toBinary(
    DashStreamMessageSchema,
    create(DashStreamMessageSchema, {
      message: { case: "event", value: { header: { threadId: "a".repeat(300) } } },
    }),
  );
  const compressed = Buffer.from(ZSTD_EVENT, "base64");
  const result = decodeRecord(new Uint8Array([1, ...compressed]));
  expect(result).toEqual(decodeRecord(new Uint8Array([0, ...plain])));
  expect(result.ok).toBe(true);
});

const ZSTD_EVENT = "KLUv/WA1AI0AAFAKsgIKrwIirAJhAQAoKkAC";

test("the service's own limit holds, packed and unpacked", () => {
  const plain = eventValue("t", 1n);
  const packed = new Uint8Array([1, ...Buffer.from(ZSTD_EVENT, "base64")]);
  const limit = (maxPayloadBytes: number) => ({ maxPayloadBytes, legacy: false });
  expect(outcome(plain, limit(plain.length - 1))).toBe("ok");
  expect(outcome(plain, limit(plain.length - 2))).toBe("payload_too_large");
  expect(outcome(packed, limit(309))).toBe("ok");
  expect(outcome(packed, limit(308))).toBe("decompressed_too_large");
  expect(outcome(packed, limit(packed.length - 2))).toBe("payload_too_large");
  const large = framed({ case: "checkpoint", value: { state: new Uint8Array(11 * 1024 * 1024) } });
  expect([outcome(large), outcome(large, limit(12 * 1024 * 1024))]).toEqual(["payload_too_large", "ok"]);
});

test("values without a framing byte are read where the service takes them", () => {
  const legacy = { ...DEFAULT_FRAMING, legacy: true };
  const unframed = eventValue("t", 1n).subarray(1);
  const packed = new Uint8Array(Buffer.from(ZSTD_EVENT, "base64"));
  for (const value of [unframed, packed]) {
    expect([outcome(value), outcome(value, legacy)]).toEqual(["unknown_framing", "ok"]);
  }
  expect(outcome(eventValue("t", 1n), legacy)).toBe("ok");
  expect(outcome(new Uint8Array([2, 3]), legacy)).toBe("invalid_protobuf");
  expect(outcome(unframed, { maxPayloadBytes: unframed.length - 1, legacy: true })).toBe("payload_too_large");
});

test("nothing throws, whatever the bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(0, 1, 0x28), fc.boolean(), (body, first, legacy) => {
      decodeRecord(new Uint8Array([first, ...body]), { maxPayloadBytes: 150, legacy });
    }),
    { numRuns: 3000 },
  );
});
