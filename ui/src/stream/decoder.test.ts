import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { frameOf, frameOfValues } from "../../testing/frames";
import { eventValue, framed } from "../../testing/messages";
import { type DecodedFrame, decodeFrame, type FrameFailure } from "../wire/frame";
import { DEFAULT_FRAMING } from "../wire/limits";
import { MainDecoder, WorkerDecoder, type WorkerLike, type WorkerRequest } from "./decoder";

class FakeWorker implements WorkerLike {
  onmessage: WorkerLike["onmessage"] = null;
  onerror: WorkerLike["onerror"] = null;
  requests: WorkerRequest[] = [];
  isTerminated = false;
  postMessage(message: WorkerRequest): void {
    // What crosses a worker boundary is copied without prototypes; so here too.
    this.requests.push(message);
  }
  terminate(): void {
    this.isTerminated = true;
  }
  ready(): void {
    this.onmessage?.({ data: { ready: true } });
  }
  answer(): void {
    const request = this.requests.shift();
    const results = request?.frames.map(({ id, frame }) => ({ id, result: decodeFrame(frame, request.framing) })) ?? [];
    this.onmessage?.({ data: structuredClone({ results }) });
  }
}

let worker: FakeWorker;
let results: number[];
let lost: string[];
const events = {
  result: (id: number) => void results.push(id),
  lost: (reason: string) => void lost.push(reason),
};

function create(): WorkerDecoder {
  return new WorkerDecoder(
    events,
    () => DEFAULT_FRAMING,
    () => worker,
  );
}

beforeEach(() => {
  vi.useFakeTimers();
  worker = new FakeWorker();
  results = [];
  lost = [];
});
afterEach(() => void vi.useRealTimers());

describe("the worker decoder", () => {
  test("hands nothing over before the worker runs, then in batches, one at a time", () => {
    const decoder = create();
    decoder.decode(1, frameOf(0, 0n, 1n));
    expect(worker.requests).toEqual([]);
    worker.ready();
    decoder.decode(2, frameOf(0, 1n, 2n));
    decoder.decode(3, frameOf(0, 2n, 3n));
    expect(worker.requests.map((request) => request.frames.length)).toEqual([1]);
    worker.answer();
    worker.answer();
    expect(results).toEqual([1, 2, 3]);
  });

  test("goes on at the main thread when the worker does not start, and loses nothing", async () => {
    const decoder = create();
    decoder.decode(1, frameOf(0, 0n, 1n));
    await vi.advanceTimersByTimeAsync(6000);
    expect([decoder.mode, worker.isTerminated, results, lost]).toEqual(["main thread", true, [1], []]);
  });

  test("goes on at the main thread where there are no workers", async () => {
    const decoder = new WorkerDecoder(
      events,
      () => DEFAULT_FRAMING,
      () => {
        throw new Error("forbidden");
      },
    );
    decoder.decode(1, frameOf(0, 0n, 1n));
    await vi.advanceTimersByTimeAsync(10);
    expect(results).toEqual([1]);
  });

  test.each([
    ["dies", () => worker.onerror?.({ message: "out of memory" })],
    ["hangs", () => void vi.advanceTimersByTime(31_000)],
  ])("says what is lost when the worker %s, and decodes what comes after", async (_, fault) => {
    const decoder = create();
    worker.ready();
    decoder.decode(1, frameOf(0, 0n, 1n));
    fault();
    expect(lost.length).toBe(1);
    decoder.decode(2, frameOf(0, 0n, 1n));
    await vi.advanceTimersByTimeAsync(10);
    expect(results).toEqual([2]);
  });
});

test("both ways give equal results, with the same reason for each kind of failure", async () => {
  const corpus: [string, Uint8Array][] = [
    ["ok", eventValue("t", 1n)],
    ["payload_missing", new Uint8Array()],
    ["payload_too_large", new Uint8Array(DEFAULT_FRAMING.maxPayloadBytes + 2)],
    ["unknown_framing", new Uint8Array([7, 1])],
    ["decompression_failed", new Uint8Array([1, 2, 3])],
    ["decompressed_too_large", new Uint8Array([1, 0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff])],
    ["invalid_protobuf", new Uint8Array([0, 0xff, 0xff])],
    ["schema_version", framed({ case: "event", value: { header: { threadId: "t", schemaVersion: 2 } } })],
  ];
  const values = corpus.map(([, value]) => value);
  const seen: (DecodedFrame | FrameFailure)[] = [];
  const main = new MainDecoder(
    { result: (_, result) => seen.push(result), lost: () => undefined },
    () => DEFAULT_FRAMING,
  );
  main.decode(1, frameOfValues(3, 5n, values));
  await vi.advanceTimersByTimeAsync(10);
  const throughWorker = new WorkerDecoder(
    { result: (_, result) => seen.push(result), lost: () => undefined },
    () => DEFAULT_FRAMING,
    () => worker,
  );
  worker.ready();
  throughWorker.decode(1, frameOfValues(3, 5n, values));
  worker.answer();
  const [ofMain, ofWorker] = seen.map((result) => (result.ok ? result.items : []));
  const bytesByLength = (_: string, value: unknown) =>
    value instanceof Uint8Array ? value.length : typeof value === "bigint" ? String(value) : value;
  expect(JSON.stringify(ofWorker, bytesByLength)).toBe(JSON.stringify(ofMain, bytesByLength));
  const reasons = ofMain?.map((item) => item.type === "record" && (item.outcome.ok ? "ok" : item.outcome.kind));
  expect(reasons).toEqual(corpus.map(([kind]) => kind));
});

test("a frame that was forgotten is not decoded", async () => {
  const main = new MainDecoder(events, () => DEFAULT_FRAMING);
  main.decode(1, frameOf(0, 0n, 1n));
  main.forget();
  main.decode(2, frameOf(0, 0n, 1n));
  await vi.advanceTimersByTimeAsync(10);
  expect(results).toEqual([2]);
});
