// What has arrived and is not applied: frames on their way through the decoder, control frames in their place between
// them. Bounded; says when it can take no more.

import type { ServerFrame } from "../wire/control";
import type { DecoderEvents, FrameDecoder } from "./decoder";
import { Inbox, type Ready } from "./inbox";

const MAX_BYTES = 128 * 1024 * 1024;
const MAX_ENTRIES = 100_000;

export interface IntakeEvents {
  /** Something may be ready to be taken. */
  ready(): void;
  /** The decoder lost what it held. */
  lost(reason: string): void;
}

export class Intake {
  readonly #events: IntakeEvents;
  readonly #decoder: FrameDecoder;
  #inbox = new Inbox();
  #nextFrameId = 1;
  #toldFrames = 0;

  constructor(createDecoder: (events: DecoderEvents) => FrameDecoder, events: IntakeEvents) {
    this.#events = events;
    this.#decoder = createDecoder({
      result: (id, result) => {
        this.#inbox.resolve(id, result);
        this.#events.ready();
      },
      lost: (reason) => this.#events.lost(reason),
    });
  }

  /** How many frames and control frames wait. */
  get length(): number {
    return this.#inbox.length;
  }

  /** What waits, when it is more or less than at the last call; otherwise null. */
  takeBacklog(): { frames: number; bytes: number } | null {
    const frames = this.#inbox.length;
    if (frames === this.#toldFrames) {
      return null;
    }
    this.#toldFrames = frames;
    return { frames, bytes: this.#inbox.bytes };
  }

  control(frame: ServerFrame): void {
    this.#inbox.pushControl(frame);
    this.#events.ready();
  }

  /** False when there is no room for the frame. */
  frame(bytes: ArrayBuffer, nowMs: number): boolean {
    if (this.#inbox.bytes + bytes.byteLength > MAX_BYTES || this.#inbox.length >= MAX_ENTRIES) {
      return false;
    }
    const id = this.#nextFrameId;
    this.#nextFrameId += 1;
    this.#inbox.pushFrame(id, bytes.byteLength, nowMs);
    this.#decoder.decode(id, bytes);
    return true;
  }

  /** The next in order of arrival, or null when there is none or it is still being decoded. */
  take(): Ready | null {
    return this.#inbox.take();
  }

  /** Drops everything; results that are still under way are ignored when they come. */
  clear(): void {
    this.#inbox = new Inbox();
    this.#decoder.forget();
  }

  dispose(): void {
    this.#decoder.dispose();
  }
}
