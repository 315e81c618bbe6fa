// The browser's side of the client's environment: sockets, storage, clocks, the worker.

import { parseVersion } from "../wire/version";
import { StreamClient } from "./client";
import { CursorStore, type KeyValueStore } from "./cursor_store";
import { MainDecoder, WorkerDecoder, type WorkerLike } from "./decoder";
import { type Environment, type SocketLike, SUBPROTOCOL } from "./environment";
import type { StreamEvent } from "./events";

const VERSION_LIMIT_MS = 2_000;

/** A client for the service that served this page. `?worker=off` decodes on the main thread. */
export function createClient(emit: (event: StreamEvent) => void): StreamClient {
  const options = new URLSearchParams(location.search);
  const env: Environment = {
    openSocket: () => new WebSocket(socketUrl(location), SUBPROTOCOL) as SocketLike,
    createDecoder: (events) =>
      options.get("worker") === "off" ? new MainDecoder(events) : new WorkerDecoder(events, spawnWorker),
    fetchNamespace,
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

async function fetchNamespace(): Promise<string | null> {
  const response = await fetch("/version", { signal: AbortSignal.timeout(VERSION_LIMIT_MS), cache: "no-store" });
  if (!response.ok) {
    return null;
  }
  return parseVersion(await response.json()).namespace;
}
