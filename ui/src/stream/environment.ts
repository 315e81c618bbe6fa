// Everything of the outside world that the client uses, so that tests can be all of it.

import type { CursorStore } from "./cursor_store";
import type { DecoderEvents, FrameDecoder } from "./decoder";

export const SUBPROTOCOL = "dashstream.v2";

export type SocketLike = Pick<
  WebSocket,
  "binaryType" | "protocol" | "readyState" | "send" | "close" | "onopen" | "onmessage" | "onclose" | "onerror"
>;

export type Timer = ReturnType<typeof setTimeout>;

/** Everything of the outside world that the client uses. */
export interface Environment {
  openSocket(): SocketLike;
  createDecoder(events: DecoderEvents): FrameDecoder;
  /** The namespace for stored cursors, as the service names it; null when it cannot be asked. */
  fetchNamespace(): Promise<string | null>;
  store: CursorStore;
  /** Monotonic milliseconds. */
  now(): number;
  wallMs(): number;
  random(): number;
  setTimer(action: () => void, ms: number): Timer;
  clearTimer(timer: Timer): void;
}
