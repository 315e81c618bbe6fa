// Every field of the protocol may hold too much, or no text at all: what is shown stays bounded and says what is there.

import { Buffer } from "node:buffer";
import { ScalarType } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { everyField } from "../../testing/every_field";
import { type Body, framed } from "../../testing/messages";
import { decodeRecord } from "./decode";
import { DEFAULT_FRAMING } from "./limits";
import { prettyMessage } from "./pretty";
import { summarize } from "./summary";

const LARGE = 1024 * 1024;
/** Quotes around a sequence that begins as UTF-8 and does not end as such. */
const NO_UTF8 = new Uint8Array([0x22, 0xc3, 0x28, 0x22]);

/** What is shown of a message: in the list, and when it is opened. */
function shown(body: Body): { listed: string; opened: string } {
  const decoded = decodeRecord(framed(body));
  if (!decoded.ok) {
    throw new Error(`${decoded.kind}: ${decoded.message}`);
  }
  const exact = (_: string, value: unknown) => (typeof value === "bigint" ? String(value) : value);
  return { listed: JSON.stringify(summarize(decoded.message), exact), opened: prettyMessage(decoded.message) };
}

const STRINGS = everyField(ScalarType.STRING, "x".repeat(LARGE));
const BYTES = everyField(ScalarType.BYTES, new Uint8Array(LARGE).fill(0x20));

test("the fields of the protocol are found", () => {
  const paths = [...STRINGS, ...BYTES].map(([path]) => path);
  for (const path of [
    "event.header.thread_id",
    "event.attributes (key)",
    "event.attributes.string_value",
    "event_batch.events.node_id",
    "state_diff.operations.value",
    "state_diff.full_state",
    "checkpoint.state",
    "checkpoint.metadata",
    "execution_trace.metadata",
  ]) {
    expect(paths).toContain(path);
  }
  expect(new Set(paths).size).toBe(paths.length);
});

describe("a megabyte in any field is shown cut", () => {
  test.each([...STRINGS, ...BYTES])("%s", (_, body) => {
    const { listed, opened } = shown(body);
    expect(listed.length).toBeLessThan(2_000);
    expect(opened.length).toBeLessThan(25_000);
    expect(opened).toMatch(/…/);
  });
});

describe("bytes that are no text, or no JSON, are shown as the bytes that they are", () => {
  const JSON_OF_HALF = new TextEncoder().encode('{"a": [1, 2');
  const cases = [NO_UTF8, JSON_OF_HALF].flatMap((bytes) =>
    everyField(ScalarType.BYTES, bytes).map(([path, body]): [string, Uint8Array, Body] => [path, bytes, body]),
  );
  test.each(cases)("%s", (_, bytes, body) => {
    const { listed, opened } = shown(body);
    expect(opened).toContain(`"${Buffer.from(bytes).toString("hex")}"`);
    expect(listed + opened).not.toContain("\ufffd");
  });
});

describe("text that is no UTF-8 is refused, not repaired", () => {
  const MARK = "\u0001\u0002\u0003\u0004";
  test.each(everyField(ScalarType.STRING, MARK))("%s", (_, body) => {
    const value = framed(body);
    const at = Buffer.from(value).indexOf(MARK);
    value.set(NO_UTF8, at);
    expect(decodeRecord(value)).toMatchObject({ ok: false, kind: "invalid_protobuf" });
  });
});

test("what guards refuse is neither copied nor quoted", () => {
  const frame = new Uint8Array(DEFAULT_FRAMING.maxPayloadBytes * 2);
  // A zstd frame that declares four gigabytes.
  const bomb = [1, 0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff];
  const used = () => {
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  for (let round = 0; round < 100; round += 1) {
    for (const framing of [0, 1, 7]) {
      frame[0] = framing;
      expect(decodeRecord(frame)).toMatchObject({ ok: false, kind: "payload_too_large" });
    }
    const small = decodeRecord(new Uint8Array(bomb));
    expect(small).toMatchObject({ ok: false, kind: "decompressed_too_large" });
    expect(small.ok || small.message.length).toBeLessThan(300);
  }
  expect(used() - before).toBeLessThan(DEFAULT_FRAMING.maxPayloadBytes);
});
