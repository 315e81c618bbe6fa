// Keeps what arrives in order while frames are decoded elsewhere: a control frame waits for the data before it. Pure.

import type { ServerFrame } from "../wire/control";
import type { DecodedFrame, FrameFailure } from "../wire/frame";

export type Ready =
  | { type: "control"; frame: ServerFrame }
  | { type: "data"; result: DecodedFrame | FrameFailure; arrivedMs: number };

type Entry =
  | { type: "control"; frame: ServerFrame }
  | { type: "data"; id: number; bytes: number; arrivedMs: number; result: DecodedFrame | FrameFailure | null };

export class Inbox {
  #entries: Entry[] = [];
  #head = 0;
  #waiting = new Map<number, Entry & { type: "data" }>();
  #bytes = 0;

  /** Bytes of frames that are not applied yet. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Frames and control frames that are not applied yet. */
  get length(): number {
    return this.#entries.length - this.#head;
  }

  /** When the oldest frame that waits has arrived, or null. */
  get oldestMs(): number | null {
    for (let at = this.#head; at < this.#entries.length; at += 1) {
      const entry = this.#entries[at];
      if (entry?.type === "data") {
        return entry.arrivedMs;
      }
    }
    return null;
  }

  pushControl(frame: ServerFrame): void {
    this.#entries.push({ type: "control", frame });
  }

  pushFrame(id: number, bytes: number, arrivedMs: number): void {
    const entry = { type: "data" as const, id, bytes, arrivedMs, result: null };
    this.#entries.push(entry);
    this.#waiting.set(id, entry);
    this.#bytes += bytes;
  }

  /** A frame is decoded. Frames that this inbox does not know (of an older connection) are ignored. */
  resolve(id: number, result: DecodedFrame | FrameFailure): void {
    const entry = this.#waiting.get(id);
    if (entry !== undefined) {
      entry.result = result;
      this.#waiting.delete(id);
    }
  }

  /** The next entry in order, or null when there is none or it still waits for the decoder. */
  take(): Ready | null {
    const entry = this.#entries[this.#head];
    if (entry === undefined || (entry.type === "data" && entry.result === null)) {
      return null;
    }
    this.#head += 1;
    if (this.#head > 256 && this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
    if (entry.type === "control" || entry.result === null) {
      return entry.type === "control" ? entry : null;
    }
    this.#bytes -= entry.bytes;
    return { type: "data", result: entry.result, arrivedMs: entry.arrivedMs };
  }
}
