// One socket. After `drop` nothing of it is heard any more, however late the browser delivers it.

import { type SocketLike, SUBPROTOCOL } from "./environment";

export interface ConnectionEvents {
  opened(): void;
  text(text: string): void;
  binary(bytes: ArrayBuffer): void;
  /** The socket is closed; a code as the browser reports it. */
  closed(code: number, reason: string): void;
  /** The server chose another protocol, or sent what is neither text nor bytes. */
  unusable(reason: string): void;
}

const OPEN = 1;

export class Connection {
  readonly #socket: SocketLike;
  #events: ConnectionEvents | null;

  /** Throws when the browser refuses to open a socket at all. */
  constructor(openSocket: () => SocketLike, events: ConnectionEvents) {
    this.#events = events;
    const socket = openSocket();
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (socket.protocol === SUBPROTOCOL) {
        this.#events?.opened();
      } else {
        this.#events?.unusable(`the service does not speak ${SUBPROTOCOL}`);
      }
    };
    socket.onmessage = ({ data }) => this.#onMessage(data);
    socket.onclose = ({ code, reason }) => {
      const heard = this.#events;
      this.#events = null;
      heard?.closed(code, reason);
    };
  }

  /** False when there is no open socket to send on. */
  send(text: string): boolean {
    if (this.#events === null || this.#socket.readyState !== OPEN) {
      return false;
    }
    this.#socket.send(text);
    return true;
  }

  /** Ends the connection. `code` must be 1000 or 3000 to 4999: browsers refuse the others. */
  drop(code: number): void {
    this.#events = null;
    try {
      this.#socket.close(code);
    } catch {
      // A socket that cannot be closed is abandoned all the same.
    }
  }

  #onMessage(data: unknown): void {
    if (typeof data === "string") {
      this.#events?.text(data);
    } else if (data instanceof ArrayBuffer) {
      this.#events?.binary(data);
    } else {
      this.#events?.unusable("the service sent what is neither text nor bytes");
    }
  }
}
