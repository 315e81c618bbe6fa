// Frames of the server, for tests.

import { create, toBinary } from "@bufbuild/protobuf";
import { FrameSchema, GapReason } from "../src/wire/generated/stream_pb";
import { eventValue } from "./messages";

/** A frame of records at `[first, next)`. */
export function frameOf(partition: number, first: bigint, next: bigint): ArrayBuffer {
  const values = [];
  for (let offset = first; offset < next; offset += 1n) {
    values.push(eventValue(`run-${partition}`, offset + 1n));
  }
  return frameOfValues(partition, first, values);
}

/** A frame of records with the values given, from `first` on. */
export function frameOfValues(partition: number, first: bigint, values: Uint8Array[]): ArrayBuffer {
  const items = values.map((value, index) => ({
    kind: { case: "record" as const, value: { offset: first + BigInt(index), value } },
  }));
  const nextOffset = first + BigInt(values.length);
  const frame = create(FrameSchema, { partition, firstOffset: first, nextOffset, items });
  return toBinary(FrameSchema, frame).slice().buffer;
}

/** A frame that says that `[first, next)` is lost to retention. */
export function gapFrame(partition: number, first: bigint, next: bigint): ArrayBuffer {
  const value = { firstOffset: first, nextOffset: next, reason: GapReason.RETENTION };
  const items = [{ kind: { case: "gap" as const, value } }];
  return toBinary(FrameSchema, create(FrameSchema, { partition, firstOffset: first, nextOffset: next, items })).slice()
    .buffer;
}

/** A welcome that begins each partition at the offset given. */
export function welcome(from: Record<string, bigint>, epoch = "epoch-1", heartbeatMs = 5000): Record<string, unknown> {
  const partitions: Record<string, { from: string; low: string; next: string }> = {};
  for (const [partition, offset] of Object.entries(from)) {
    partitions[partition] = { from: String(offset), low: "0", next: String(offset) };
  }
  return {
    type: "welcome",
    session: "s",
    epoch,
    topic: "t",
    resumeNamespace: "space",
    heartbeatMs,
    idleTimeoutMs: 60_000,
    partitions,
  };
}
