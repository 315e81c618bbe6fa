// The client's surroundings without a browser: sockets that the test holds in its hands, and time that it moves.

import { CursorStore, type KeyValueStore } from "../src/stream/cursor_store";
import type { DecoderEvents, FrameDecoder } from "../src/stream/decoder";
import type { Environment, SocketLike, Timer } from "../src/stream/environment";
import type { StreamEvent } from "../src/stream/events";
import { decodeFrame } from "../src/wire/frame";
import { DEFAULT_FRAMING } from "../src/wire/limits";
import type { ServiceVersion } from "../src/wire/version";

export class MemoryStore implements KeyValueStore {
  readonly values = new Map<string, string>();
  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.values.set(key, value);
  }
  removeItem(key: string): void {
    this.values.delete(key);
  }
}

export class FakeSocket {
  binaryType: BinaryType = "blob";
  protocol = "dashstream.v2";
  readyState = 0;
  onopen: SocketLike["onopen"] = null;
  onmessage: SocketLike["onmessage"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  readonly sent: Record<string, unknown>[] = [];
  closedWith: number | null = null;

  send(text: string): void {
    if (this.readyState !== 1) {
      throw new Error("not open");
    }
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  /** As strict as a browser. */
  close(code = 1000): void {
    if (code !== 1000 && (code < 3000 || code > 4999)) {
      throw new DOMException("invalid code", "InvalidAccessError");
    }
    this.closedWith = code;
    this.readyState = 2;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.call(this as unknown as WebSocket, new Event("open"));
  }

  text(frame: unknown): void {
    this.#message(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  binary(bytes: ArrayBuffer): void {
    this.#message(bytes);
  }

  /** The server or the network ends the connection. */
  end(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.call(this as unknown as WebSocket, { code, reason } as CloseEvent);
  }

  #message(data: unknown): void {
    this.onmessage?.call(this as unknown as WebSocket, { data } as MessageEvent);
  }
}

/** Decodes when the test says so. */
export class HeldDecoder implements FrameDecoder {
  readonly mode = "main thread";
  held: { id: number; frame: ArrayBuffer }[] = [];
  isHolding = false;
  readonly #events: DecoderEvents;

  constructor(events: DecoderEvents) {
    this.#events = events;
  }

  decode(id: number, frame: ArrayBuffer): void {
    if (this.isHolding) {
      this.held.push({ id, frame });
    } else {
      this.#events.result(id, decodeFrame(frame));
    }
  }

  release(): void {
    for (const { id, frame } of this.held.splice(0)) {
      this.#events.result(id, decodeFrame(frame));
    }
  }

  lose(reason: string): void {
    this.#events.lost(reason);
  }

  forget(): void {
    // Results of older connections must be ignored by the client; this decoder delivers them all the same.
  }

  dispose(): void {}
}

export class FakeEnvironment implements Environment {
  readonly sockets: FakeSocket[] = [];
  readonly events: StreamEvent[] = [];
  readonly storage = new MemoryStore();
  readonly store: CursorStore;
  /** Null: the service cannot be asked. Empty: it does not know its stream's name yet. */
  namespace: string | null = "space";
  decoder: HeldDecoder | null = null;
  #now = 1_000;
  #timers = new Map<number, { at: number; action: () => void }>();
  #nextTimer = 1;

  /** Storage of the tab, and that which it shares with other tabs. */
  constructor(storage?: MemoryStore, shared?: MemoryStore) {
    this.storage = storage ?? this.storage;
    this.store = new CursorStore(shared === undefined ? [this.storage] : [this.storage, shared]);
  }

  readonly record = (event: StreamEvent): void => {
    this.events.push(event);
  };

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (last === undefined) {
      throw new Error("no socket was opened");
    }
    return last;
  }

  openSocket(): SocketLike {
    const socket = new FakeSocket();
    this.sockets.push(socket);
    return socket as unknown as SocketLike;
  }

  createDecoder(events: DecoderEvents): FrameDecoder {
    this.decoder = new HeldDecoder(events);
    return this.decoder;
  }

  fetchVersion(): Promise<ServiceVersion | null> {
    const { namespace } = this;
    return namespace === null
      ? Promise.reject(new Error("unreachable"))
      : Promise.resolve({ namespace: namespace || null, framing: DEFAULT_FRAMING, asksForToken: false });
  }

  now(): number {
    return this.#now;
  }

  wallMs(): number {
    return 1_763_700_000_000 + this.#now;
  }

  random(): number {
    return 0.5;
  }

  setTimer(action: () => void, ms: number): Timer {
    const id = this.#nextTimer;
    this.#nextTimer += 1;
    this.#timers.set(id, { at: this.#now + ms, action });
    return id as unknown as Timer;
  }

  clearTimer(timer: Timer): void {
    this.#timers.delete(timer as unknown as number);
  }

  /** Moves time and runs what falls due, in order. */
  advance(ms: number): void {
    const until = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= until).sort((a, b) => a[1].at - b[1].at)[0];
      if (due === undefined) {
        break;
      }
      this.#timers.delete(due[0]);
      this.#now = Math.max(this.#now, due[1].at);
      due[1].action();
    }
    this.#now = until;
  }
}
