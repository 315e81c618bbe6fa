// One zstd frame, decompressed within a hard bound.
//
// The frame is walked before anything is allocated: a declared size over the bound, a dictionary, a second frame or
// trailing bytes are refused on sight. A false or missing size is caught while blocks come out.

import { Decompress } from "fzstd";

export type ZstdFailure = "decompression_failed" | "decompressed_too_large";

export type ZstdResult = { ok: true; bytes: Uint8Array } | { ok: false; kind: ZstdFailure; message: string };

interface FrameHeader {
  /** Bytes before the first block. */
  length: number;
  declaredSize: bigint | null;
  /** Window in bytes, and where its descriptor lies; null in a single segment. */
  window: { bytes: number; at: number } | null;
  checksum: boolean;
}

class Refused extends Error {
  constructor(
    readonly kind: ZstdFailure,
    message: string,
  ) {
    super(message);
  }
}

/** Decompresses exactly one frame to at most `maxBytes` bytes. Never throws. */
export function decompressFrame(frame: Uint8Array, maxBytes: number): ZstdResult {
  try {
    const header = readHeader(frame);
    if (header.declaredSize !== null && header.declaredSize > BigInt(maxBytes)) {
      throw new Refused("decompressed_too_large", `the frame declares ${header.declaredSize} bytes, limit ${maxBytes}`);
    }
    requireOneFrame(frame, header);
    return { ok: true, bytes: decompress(boundWindow(frame, header, maxBytes), header, maxBytes) };
  } catch (error) {
    if (error instanceof Refused) {
      return { ok: false, kind: error.kind, message: error.message };
    }
    const message = error instanceof Error ? error.message : "unknown fault";
    return { ok: false, kind: "decompression_failed", message: `not a readable zstd frame: ${message}` };
  }
}

function byteAt(bytes: Uint8Array, at: number): number {
  const value = bytes[at];
  if (value === undefined) {
    throw new Refused("decompression_failed", "the zstd frame is cut off");
  }
  return value;
}

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

/** Whether the bytes begin as every zstd frame does. */
export function isZstdFrame(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, at) => bytes[at] === byte);
}

function readHeader(frame: Uint8Array): FrameHeader {
  if (!isZstdFrame(frame)) {
    throw new Refused("decompression_failed", "no zstd frame behind the framing byte");
  }
  const descriptor = byteAt(frame, 4);
  const singleSegment = (descriptor & 0x20) !== 0;
  if ((descriptor & 0x03) !== 0) {
    throw new Refused("decompression_failed", "the zstd frame asks for a dictionary");
  }
  let at = 5;
  let window: FrameHeader["window"] = null;
  if (!singleSegment) {
    const wire = byteAt(frame, at);
    window = { bytes: windowBytes(wire), at };
    at += 1;
  }
  const sizeFlag = descriptor >> 6;
  const sizeBytes = sizeFlag === 0 ? (singleSegment ? 1 : 0) : 1 << sizeFlag;
  let declaredSize: bigint | null = null;
  if (sizeBytes > 0) {
    declaredSize = sizeBytes === 2 ? 256n : 0n;
    for (let i = 0; i < sizeBytes; i += 1) {
      declaredSize += BigInt(byteAt(frame, at + i)) << BigInt(8 * i);
    }
  }
  return { length: at + sizeBytes, declaredSize, window, checksum: (descriptor & 0x04) !== 0 };
}

/** Walks the block headers: the value must end where the frame ends. */
function requireOneFrame(frame: Uint8Array, header: FrameHeader): void {
  let at = header.length;
  for (;;) {
    const word = byteAt(frame, at) | (byteAt(frame, at + 1) << 8) | (byteAt(frame, at + 2) << 16);
    const isRunLength = ((word >> 1) & 3) === 1;
    at += 3 + (isRunLength ? 1 : word >> 3);
    if (at > frame.length) {
      throw new Refused("decompression_failed", "the zstd frame is cut off");
    }
    if ((word & 1) === 1) {
      break;
    }
  }
  if (at + (header.checksum ? 4 : 0) !== frame.length) {
    throw new Refused("decompression_failed", "bytes after the zstd frame");
  }
}

/** The decompressor allocates the window that the header asks for; more than the output bound is never needed. */
function boundWindow(frame: Uint8Array, header: FrameHeader, maxBytes: number): Uint8Array {
  if (header.window === null || header.window.bytes <= maxBytes) {
    return frame;
  }
  const copy = frame.slice();
  copy[header.window.at] = windowDescriptor(maxBytes);
  return copy;
}

/** The smallest window of at least so many bytes: the content is never larger, so no match can reach further back. */
function windowDescriptor(bytes: number): number {
  let wire = 0;
  while (windowBytes(wire) < bytes) {
    wire += 1;
  }
  return wire;
}

/** Five bits of exponent, three of mantissa. */
function windowBytes(wire: number): number {
  const base = 2 ** (10 + (wire >> 3));
  return base + (base / 8) * (wire & 7);
}

function decompress(frame: Uint8Array, header: FrameHeader, maxBytes: number): Uint8Array {
  const blocks: Uint8Array[] = [];
  let total = 0;
  new Decompress((block) => {
    total += block.length;
    if (total > maxBytes) {
      throw new Refused("decompressed_too_large", `the frame holds more than ${maxBytes} bytes`);
    }
    blocks.push(block);
  }).push(frame, true);
  if (header.declaredSize !== null && header.declaredSize !== BigInt(total)) {
    throw new Refused("decompression_failed", `the frame declares ${header.declaredSize} bytes and holds ${total}`);
  }
  const only = blocks.filter((block) => block.length > 0);
  if (only.length === 1 && only[0] !== undefined) {
    return only[0];
  }
  const whole = new Uint8Array(total);
  let at = 0;
  for (const block of only) {
    whole.set(block, at);
    at += block.length;
  }
  return whole;
}
