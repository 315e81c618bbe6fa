// Everything of the outside world that the client uses, so that tests can be all of it.

import type { ServiceVersion } from "../wire/version";
import type { CursorStore } from "./cursor_store";
import type { DecoderEvents, FrameDecoder } from "./decoder";

export const SUBPROTOCOL = "dashstream.v2";
/** A browser can set no header on a WebSocket: the token is one more subprotocol, which the service never chooses. */
const TOKEN_PROTOCOL = "dashstream.bearer.";

/** What to offer, with the token where there is one. */
export function subprotocols(token: string | null): string[] {
  return token === null || token === "" ? [SUBPROTOCOL] : [SUBPROTOCOL, TOKEN_PROTOCOL + token];
}

export type SocketLike = Pick<
  WebSocket,
  "binaryType" | "protocol" | "readyState" | "send" | "close" | "onopen" | "onmessage" | "onclose" | "onerror"
>;

export type Timer = ReturnType<typeof setTimeout>;

/** Everything of the outside world that the client uses. */
export interface Environment {
  openSocket(): SocketLike;
  createDecoder(events: DecoderEvents): FrameDecoder;
  /** What the service says of itself; null when it cannot be asked. */
  fetchVersion(): Promise<ServiceVersion | null>;
  store: CursorStore;
  /** Monotonic milliseconds. */
  now(): number;
  wallMs(): number;
  random(): number;
  setTimer(action: () => void, ms: number): Timer;
  clearTimer(timer: Timer): void;
}
