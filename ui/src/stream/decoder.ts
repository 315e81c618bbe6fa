// Decodes frames off the main thread where that is possible, on it where it is not.
//
// Results come back in any case, each with the id that it was given; a decoder that can give none says so once.

import { type DecodedFrame, decodeFrame, type FrameFailure } from "../wire/frame";
import type { Framing } from "../wire/limits";

export interface DecoderEvents {
  result(id: number, result: DecodedFrame | FrameFailure): void;
  /** The decoder lost what was handed to it and goes on with an empty queue. */
  lost(reason: string): void;
}

export interface FrameDecoder {
  decode(id: number, frame: ArrayBuffer): void;
  /** Results of what was handed over are no longer wanted. */
  forget(): void;
  dispose(): void;
  readonly mode: "worker" | "main thread";
}

export type WorkerRequest = { frames: { id: number; frame: ArrayBuffer }[]; framing: Framing };
export type WorkerReply = { ready: true } | { results: { id: number; result: DecodedFrame | FrameFailure }[] };

const SLICE_MS = 8;

/** Decodes on the main thread, in slices that leave room for drawing. */
export class MainDecoder implements FrameDecoder {
  readonly mode = "main thread";
  readonly #events: DecoderEvents;
  readonly #framing: () => Framing;
  #queue: { id: number; frame: ArrayBuffer }[] = [];
  #scheduled = false;

  constructor(events: DecoderEvents, framing: () => Framing) {
    this.#events = events;
    this.#framing = framing;
  }

  decode(id: number, frame: ArrayBuffer): void {
    this.#queue.push({ id, frame });
    this.#schedule();
  }

  forget(): void {
    this.#queue = [];
  }

  dispose(): void {
    this.forget();
  }

  #schedule(): void {
    if (!this.#scheduled && this.#queue.length > 0) {
      this.#scheduled = true;
      setTimeout(() => this.#slice(), 0);
    }
  }

  #slice(): void {
    this.#scheduled = false;
    const until = performance.now() + SLICE_MS;
    let done = 0;
    const queue = this.#queue;
    for (const { id, frame } of queue) {
      done += 1;
      this.#events.result(id, decodeFrame(frame, this.#framing()));
      if (performance.now() >= until || this.#queue !== queue) {
        break;
      }
    }
    if (this.#queue === queue) {
      this.#queue = queue.slice(done);
    }
    this.#schedule();
  }
}

/** What a decoder needs of a worker; lets tests do without one. */
export interface WorkerLike {
  postMessage(message: WorkerRequest, transfer: ArrayBuffer[]): void;
  terminate(): void;
  onmessage: ((event: { data: WorkerReply }) => void) | null;
  onerror: ((event: { message?: string; preventDefault?: () => void }) => void) | null;
}

const START_LIMIT_MS = 5_000;
const BATCH_LIMIT_MS = 30_000;
const MAX_BATCH = 64;

/**
 * Decodes in a worker. One batch is under way at a time and the next one collects meanwhile, so that a busy stream
 * costs few messages. Frames are moved, not copied, and only once the worker has shown that it runs.
 */
export class WorkerDecoder implements FrameDecoder {
  readonly #events: DecoderEvents;
  readonly #framing: () => Framing;
  #worker: WorkerLike | null = null;
  #fallback: MainDecoder | null = null;
  #queue: { id: number; frame: ArrayBuffer }[] = [];
  #isReady = false;
  #underWay = false;
  #deadline: ReturnType<typeof setTimeout> | null = null;

  constructor(events: DecoderEvents, framing: () => Framing, spawn: () => WorkerLike) {
    this.#events = events;
    this.#framing = framing;
    try {
      const worker = spawn();
      worker.onmessage = ({ data }) => this.#onReply(data);
      worker.onerror = (event) => {
        event.preventDefault?.();
        this.#giveUp(`the decode worker failed: ${event.message ?? "no reason given"}`);
      };
      this.#worker = worker;
      this.#arm(START_LIMIT_MS, "the decode worker did not start");
    } catch {
      this.#giveUp("this browser runs no worker");
    }
  }

  get mode(): "worker" | "main thread" {
    return this.#fallback === null ? "worker" : "main thread";
  }

  decode(id: number, frame: ArrayBuffer): void {
    if (this.#fallback !== null) {
      this.#fallback.decode(id, frame);
      return;
    }
    this.#queue.push({ id, frame });
    this.#flush();
  }

  forget(): void {
    this.#queue = [];
    this.#fallback?.forget();
  }

  dispose(): void {
    this.#disarm();
    this.#worker?.terminate();
    this.#worker = null;
    this.#fallback?.dispose();
  }

  #flush(): void {
    if (this.#worker === null || !this.#isReady || this.#underWay || this.#queue.length === 0) {
      return;
    }
    const frames = this.#queue.slice(0, MAX_BATCH);
    this.#queue = this.#queue.slice(MAX_BATCH);
    this.#underWay = true;
    this.#arm(BATCH_LIMIT_MS, "the decode worker does not answer");
    this.#worker.postMessage(
      { frames, framing: this.#framing() },
      frames.map(({ frame }) => frame),
    );
  }

  #onReply(reply: WorkerReply): void {
    this.#disarm();
    if ("ready" in reply) {
      this.#isReady = true;
    } else {
      this.#underWay = false;
      this.#flushAfter(reply.results);
      return;
    }
    this.#flush();
  }

  #flushAfter(results: { id: number; result: DecodedFrame | FrameFailure }[]): void {
    // The worker gets its next batch before this thread applies the last one.
    this.#flush();
    for (const { id, result } of results) {
      this.#events.result(id, result);
    }
  }

  /** From here on the main thread decodes. What the worker held is lost and said to be. */
  #giveUp(reason: string): void {
    this.#disarm();
    this.#worker?.terminate();
    this.#worker = null;
    if (this.#fallback !== null) {
      return;
    }
    this.#fallback = new MainDecoder(this.#events, this.#framing);
    const waiting = this.#queue;
    this.#queue = [];
    if (this.#underWay) {
      this.#underWay = false;
      this.#events.lost(reason);
      return;
    }
    for (const { id, frame } of waiting) {
      this.#fallback.decode(id, frame);
    }
  }

  #arm(limitMs: number, reason: string): void {
    this.#disarm();
    this.#deadline = setTimeout(() => this.#giveUp(reason), limitMs);
  }

  #disarm(): void {
    if (this.#deadline !== null) {
      clearTimeout(this.#deadline);
      this.#deadline = null;
    }
  }
}
