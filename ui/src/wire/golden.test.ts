// The page reads the same golden files as the service's tests: a change of the contract shows on both sides.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { onClose } from "../stream/backoff";
import { parseControl } from "./control";
import { decodeRecord } from "./decode";
import { decodeFrame } from "./frame";
import { summarize } from "./summary";

const folder = new URL("../../../proto/golden/", import.meta.url);

function bytes(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(new URL(name, folder)));
}

// The files are written by the service's tests; their shape is what this test is about.
// biome-ignore lint/suspicious/noExplicitAny: plain JSON of a known file
function json(name: string): any {
  return JSON.parse(readFileSync(new URL(name, folder), "utf8"));
}

describe("golden files", () => {
  it("a frame says what the service wrote, exact beyond 2^53", () => {
    const said = json("frame.json");
    const file = bytes("frame.bin");
    const frame = decodeFrame(file.buffer);
    if (!frame.ok) {
      throw new Error(frame.message);
    }
    expect([frame.partition, String(frame.first), String(frame.next)]).toEqual([
      said.partition,
      said.firstOffset,
      said.nextOffset,
    ]);
    const items = frame.items.map((item) =>
      item.type === "record"
        ? {
            kind: "record",
            offset: String(item.offset),
            timestampMs: String(item.timestampMs),
            value: [...item.value],
            findings: item.findings.map((finding) => ({
              kind: finding.kind,
              eventIndex: finding.eventIndex,
              expected: String(finding.expected),
              found: String(finding.found),
            })),
          }
        : { kind: item.type, firstOffset: String(item.first), nextOffset: String(item.next), reason: item.reason },
    );
    const expected = said.items.map(({ file, ...item }: { file?: string }) =>
      file === undefined ? item : { ...item, value: [...bytes(file)] },
    );
    expect(items).toEqual(expected);
  });

  it("record values decode, plain and compressed", () => {
    const plain = decodeRecord(bytes("record_plain_event.bin"));
    const batch = decodeRecord(bytes("record_zstd_batch.bin"));
    if (!plain.ok || !batch.ok) {
      throw new Error("a golden record cannot be read");
    }
    const summary = summarize(plain.message);
    expect([summary.tenant, summary.thread, summary.node, summary.sequence]).toEqual([
      "tenant-a",
      "thread-1",
      "plan",
      7n,
    ]);
    expect(batch.message.message.case).toBe("eventBatch");
  });

  it("every v2 text frame is understood, none is of an unknown type", () => {
    const frames = json("control.json");
    for (const [name, frame] of Object.entries(frames)) {
      if (name.startsWith("v1 ")) {
        continue;
      }
      const parsed = parseControl(JSON.stringify(frame));
      expect(parsed, name).toMatchObject({ ok: true });
      expect(parsed.ok && parsed.frame?.type, name).toBe((frame as { type: string }).type);
    }
    const heartbeat = parseControl(JSON.stringify(frames["v2 heartbeat"]));
    expect(heartbeat.ok && heartbeat.frame).toMatchObject({ status: "degraded", reasons: ["ReplayStore is down"] });
  });

  it("close codes below 4500 are answered by a new connection, those above are not", () => {
    const codes: Record<string, number> = json("close_codes.json");
    for (const [name, code] of Object.entries(codes)) {
      const stops = code >= 4500 || [1002, 1008, 1009].includes(code);
      expect(onClose(code, "").action === "stop", name).toBe(stops);
    }
  });
});
