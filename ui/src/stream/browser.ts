// The browser's side of the client's environment: sockets, storage, clocks, the worker.

import { DEFAULT_FRAMING } from "../wire/limits";
import { parseVersion, type ServiceVersion } from "../wire/version";
import { StreamClient } from "./client";
import { CursorStore, type KeyValueStore } from "./cursor_store";
import { MainDecoder, WorkerDecoder, type WorkerLike } from "./decoder";
import { type Environment, type SocketLike, subprotocols } from "./environment";
import type { StreamEvent } from "./events";

const VERSION_LIMIT_MS = 2_000;

/** A client for the service that served this page. `?worker=off` decodes on the main thread. */
export function createClient(emit: (event: StreamEvent) => void): StreamClient {
  const options = new URLSearchParams(location.search);
  let framing = DEFAULT_FRAMING;
  const env: Environment = {
    openSocket: () => new WebSocket(socketUrl(location), subprotocols(token())) as SocketLike,
    createDecoder: (events) =>
      options.get("worker") === "off"
        ? new MainDecoder(events, () => framing)
        : new WorkerDecoder(events, () => framing, spawnWorker),
    fetchVersion: async () => {
      const version = await fetchVersion();
      framing = version?.framing ?? framing;
      return version;
    },
    store: new CursorStore(availableStores()),
    now: () => performance.now(),
    wallMs: () => Date.now(),
    random: () => Math.random(),
    setTimer: (action, ms) => setTimeout(action, ms),
    clearTimer: (timer) => clearTimeout(timer),
  };
  const client = new StreamClient(env, emit);
  addEventListener("pagehide", () => client.flush());
  addEventListener("online", () => client.retryNow());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") {
      client.flush();
    }
  });
  return client;
}

function socketUrl(page: Location): string {
  return `${page.protocol === "https:" ? "wss:" : "ws:"}//${page.host}/ws`;
}

function spawnWorker(): WorkerLike {
  return new Worker(new URL("./decode_worker.ts", import.meta.url), { type: "module" }) as unknown as WorkerLike;
}

/** Reading `sessionStorage` throws where storage is forbidden. */
function availableStores(): KeyValueStore[] {
  const stores: KeyValueStore[] = [];
  for (const open of [() => sessionStorage, () => localStorage]) {
    try {
      stores.push(open());
    } catch {
      // The page works without it; a reload then counts as a first visit.
    }
  }
  return stores;
}

const TOKEN = "dashstream.token";

/** Keeps a token for this tab, and no longer than it. */
export function keepToken(token: string): void {
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // Without storage there is no place for it: the page asks again.
  }
}

function token(): string | null {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

async function fetchVersion(): Promise<ServiceVersion | null> {
  const response = await fetch("/version", { signal: AbortSignal.timeout(VERSION_LIMIT_MS), cache: "no-store" });
  return response.ok ? parseVersion(await response.json()) : null;
}
