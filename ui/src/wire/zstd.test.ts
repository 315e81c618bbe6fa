import { Buffer } from "node:buffer";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decompressFrame } from "./zstd";

const LIMIT = 10 * 1024 * 1024;
const TEXT = "agent run ".repeat(200);
// Made by the zstd command line tool.
const KNOWN = bytes("KLUv/WDQBo0AAFBhZ2VudCBydW4gAQDD9y9I");
const UNKNOWN_WITH_CHECKSUM = bytes("KLUv/QRYjQAAUGFnZW50IHJ1biABAMP3L0h9yDai");
const WINDOW_OF_128_MIB = bytes("KLUv/QCIjQAAUGFnZW50IHJ1biABAMP3L0g=");
const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

function bytes(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, "base64"));
}

function text(frame: Uint8Array, limit = LIMIT): string {
  const result = decompressFrame(frame, limit);
  return result.ok ? new TextDecoder().decode(result.bytes) : `${result.kind}: ${result.message}`;
}

function kind(frame: Uint8Array, limit = LIMIT): string {
  const result = decompressFrame(frame, limit);
  return result.ok ? "ok" : result.kind;
}

/** A frame of run-length blocks; the declared size (4 bytes, single segment) or a window descriptor. */
function frameOfRuns(sizes: number[], head: { declared: number } | { window: number }): Uint8Array {
  const out = [...MAGIC];
  if ("declared" in head) {
    out.push(0xa0, ...little(head.declared, 4));
  } else {
    out.push(0x00, head.window);
  }
  for (const [index, size] of sizes.entries()) {
    const isLast = index === sizes.length - 1 ? 1 : 0;
    out.push(...little((size << 3) | (1 << 1) | isLast, 3), 0x61);
  }
  return new Uint8Array(out);
}

function little(value: number, length: number): number[] {
  return Array.from({ length }, (_, i) => Math.floor(value / 256 ** i) % 256);
}

const BLOCK = 128 * 1024;

describe("a zstd frame is decompressed", () => {
  test("with its declared size", () => expect(text(KNOWN)).toBe(TEXT));
  test("without a declared size, with a checksum", () => expect(text(UNKNOWN_WITH_CHECKSUM)).toBe(TEXT));
  test("with a window far larger than its content", () => expect(text(WINDOW_OF_128_MIB)).toBe(TEXT));
  test.each([2_000, 10_000, 64 * 2 ** 20])("with such a window, whatever the limit: %i", (limit) => {
    expect(text(WINDOW_OF_128_MIB, limit)).toBe(TEXT);
  });
  test("up to exactly the limit", () => {
    const blocks = Array.from({ length: 80 }, () => BLOCK);
    expect(kind(frameOfRuns(blocks, { declared: LIMIT }))).toBe("ok");
    expect(kind(frameOfRuns(blocks, { window: 0x68 }))).toBe("ok");
  });
});

describe("a bomb is refused", () => {
  const blocks = Array.from({ length: 81 }, () => BLOCK);
  test("by its declared size", () =>
    expect(kind(frameOfRuns(blocks, { declared: BLOCK * 81 }))).toBe("decompressed_too_large"));
  test("without a declared size", () =>
    expect(kind(frameOfRuns(blocks, { window: 0x68 }))).toBe("decompressed_too_large"));
  test("with a size that is declared too small", () =>
    expect(kind(frameOfRuns(blocks, { declared: 10 }))).not.toBe("ok"));
  test("when it declares 2^62 bytes, without an allocation", () => {
    const huge = new Uint8Array([...MAGIC, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0]);
    expect(kind(huge)).toBe("decompressed_too_large");
  });
});

describe("what is no single sound frame is refused", () => {
  const cases: [string, Uint8Array][] = [
    ["nothing", new Uint8Array()],
    ["no magic", new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8])],
    ["a skippable frame", new Uint8Array([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])],
    ["two frames", new Uint8Array([...KNOWN, ...KNOWN])],
    ["trailing bytes", new Uint8Array([...KNOWN, 0])],
    ["a dictionary", new Uint8Array([...MAGIC, 0x21, 1, 4, 0x21, 0, 0, 1, 2, 3, 4])],
    ["a size declared too large", frameOfRuns([10], { declared: 11 })],
    ["a size declared too small", frameOfRuns([10], { declared: 9 })],
    ["a block of the reserved type", new Uint8Array([...MAGIC, 0x20, 1, 0x0f, 0, 0, 1])],
  ];
  test.each(cases)("%s", (_, frame) => expect(kind(frame)).toBe("decompression_failed"));

  test("every prefix of a frame", () => {
    for (let length = 0; length < KNOWN.length; length += 1) {
      expect(kind(KNOWN.subarray(0, length))).toBe("decompression_failed");
    }
  });

  test("nothing throws or exceeds the bound, whatever the bytes", () => {
    const mutated = fc
      .tuple(
        fc.constantFrom(KNOWN, UNKNOWN_WITH_CHECKSUM, WINDOW_OF_128_MIB),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      )
      .map(([frame, changes]) => {
        const copy = frame.slice();
        for (const [at, value] of changes) {
          copy[at % copy.length] = value;
        }
        return copy;
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 64 }), mutated), (frame) => {
        const result = decompressFrame(frame, 4096);
        return !result.ok || result.bytes.length <= 4096;
      }),
      { numRuns: 1500 },
    );
  });
});
