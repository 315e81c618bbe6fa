import { Buffer } from "node:buffer";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { eventValue, framed } from "../../testing/messages";
import { decodeRecord } from "./decode";
import { type AttributeValue, AttributeValueSchema, DashStreamMessageSchema } from "./generated/dashstream_pb";
import { MAX_PAYLOAD_BYTES } from "./limits";

function outcome(value: Uint8Array): string {
  const result = decodeRecord(value);
  return result.ok ? "ok" : result.kind;
}

describe("every kind of unreadable value has its own name", () => {
  const cases: [string, Uint8Array, string][] = [
    ["no value", new Uint8Array(), "payload_missing"],
    ["over the limit", new Uint8Array(MAX_PAYLOAD_BYTES + 2), "payload_too_large"],
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

test("nothing throws, whatever the bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(0, 1), (body, framing) => {
      decodeRecord(new Uint8Array([framing, ...body]));
    }),
    { numRuns: 3000 },
  );
});
