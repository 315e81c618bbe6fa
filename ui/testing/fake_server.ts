// A stand-in for the service: the v2 protocol over an in-memory log, and the means to break it on purpose.

import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { type WebSocket, WebSocketServer } from "ws";
import {
  FindingKind,
  FrameSchema,
  GapReason,
  type Item,
  ItemSchema,
  SkipReason,
} from "../src/wire/generated/stream_pb";

type Entry =
  | {
      type: "record";
      value: Uint8Array;
      timestampMs: number;
      findings: { kind: FindingKind; expected: bigint; found: bigint }[];
    }
  | { type: "skip"; reason: SkipReason }
  | { type: "gap"; reason: GapReason };

interface Partition {
  low: bigint;
  entries: Entry[];
}

interface Session {
  socket: WebSocket;
  next: Map<number, bigint>;
  state: "replaying" | "live" | "parked";
  /** Of the replay that is under way. */
  replayed: number;
  pages: number;
}

interface Hello {
  type: string;
  from: string;
  lastOffsetsByPartition?: Record<string, string>;
  default?: string;
  epoch?: string;
  time?: string;
}

const FRAME_LIMIT = 200;

export interface FakeOptions {
  partitions?: number;
  port?: number;
  heartbeatMs?: number;
  /** First offset of every partition. */
  low?: bigint;
  /** Most offsets of one replay, as `REPLAY_MAX_TOTAL`. */
  maxTotal?: number;
  /** Offsets of one page of a replay, and how many pages are sent before `allowPages` allows for more. */
  pageSize?: number;
  pages?: number;
  /** Folder with the built page, served at `/`. */
  page?: string;
}

export class FakeServer {
  readonly hellos: Hello[] = [];
  readonly resumes: Hello[] = [];
  readonly applied: Record<string, string>[] = [];
  /** So many replays run out of time before their first page. */
  timeouts = 0;
  ingest: { status: string; reasons: string[] } = { status: "healthy", reasons: [] };
  epoch = "epoch-1";
  namespace = "fake-cluster/fake-topic";
  #partitions = new Map<number, Partition>();
  #sessions = new Set<Session>();
  #holes = new Map<number, { times: number }>();
  #pages: number;
  #isHeld = false;
  #http: Server | null = null;
  #ws: WebSocketServer | null = null;
  #timer: ReturnType<typeof setInterval> | null = null;
  readonly #options: Required<Omit<FakeOptions, "page">> & { page: string | null };
  port = 0;

  constructor(options: FakeOptions = {}) {
    const replay = { maxTotal: 10_000, pageSize: 1_000, pages: Number.POSITIVE_INFINITY };
    this.#options = { partitions: 4, port: 0, heartbeatMs: 500, low: 0n, page: null, ...replay, ...options };
    this.port = this.#options.port;
    this.#pages = this.#options.pages;
    for (let partition = 0; partition < this.#options.partitions; partition += 1) {
      this.#partitions.set(partition, { low: this.#options.low, entries: [] });
    }
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Listens; after a stop again on the same port, with the same log. */
  async start(): Promise<void> {
    const http = createServer((request, response) => this.#onRequest(request, response));
    const ws = new WebSocketServer({
      server: http,
      path: "/ws",
      handleProtocols: (offered) => (offered.has("dashstream.v2") ? "dashstream.v2" : false),
    });
    ws.on("connection", (socket) => this.#onConnection(socket));
    await new Promise<void>((resolve, reject) => {
      http.once("error", reject);
      http.listen(this.port, "127.0.0.1", resolve);
    });
    this.port = (http.address() as AddressInfo).port;
    this.#http = http;
    this.#ws = ws;
    this.#timer = setInterval(() => this.#heartbeat(), this.#options.heartbeatMs);
  }

  /** Ends at once: sockets break without a close frame unless a code is given. */
  async stop(code: number | null = null): Promise<void> {
    this.dropConnections(code);
    if (this.#timer !== null) {
      clearInterval(this.#timer);
    }
    this.#ws?.close();
    const http = this.#http;
    await new Promise<void>((resolve) => {
      http?.close(() => resolve());
      http?.closeAllConnections();
      if (http === null) {
        resolve();
      }
    });
  }

  dropConnections(code: number | null = null): void {
    for (const { socket } of this.#sessions) {
      if (code === null) {
        socket.terminate();
      } else {
        socket.close(code);
      }
    }
    this.#sessions.clear();
  }

  end(partition: number): bigint {
    const { low, entries } = this.#partition(partition);
    return low + BigInt(entries.length);
  }

  record(
    partition: number,
    value: Uint8Array,
    findings: { kind: FindingKind; expected: bigint; found: bigint }[] = [],
    timestampMs = Date.now(),
  ): void {
    this.#append(partition, { type: "record", value, timestampMs, findings });
  }

  /** Retention: the oldest offsets of the partition are gone. */
  trim(partition: number, count: number): void {
    const trimmed = this.#partition(partition);
    trimmed.low += BigInt(count);
    trimmed.entries.splice(0, count);
  }

  skip(partition: number, count: number, reason = SkipReason.NO_RECORD): void {
    for (let i = 0; i < count; i += 1) {
      this.#partition(partition).entries.push({ type: "skip", reason });
    }
    this.#pushAll();
  }

  gap(partition: number, count: number, reason = GapReason.RETENTION): void {
    for (let i = 0; i < count; i += 1) {
      this.#partition(partition).entries.push({ type: "gap", reason });
    }
    this.#pushAll();
  }

  /** Replays go on for so many pages more. */
  allowPages(count: number): void {
    this.#pages += count;
    for (const session of this.#sessions) {
      this.#replay(session);
    }
  }

  /** A defect: the next `times` frames of the partition leave out their first offset without a word. */
  injectHole(partition: number, times: number): void {
    this.#holes.set(partition, { times });
  }

  /** The topic is created anew: a new epoch, offsets from 0. */
  recreateTopic(epoch: string): void {
    this.epoch = epoch;
    for (const [number, partition] of this.#partitions) {
      partition.low = 0n;
      partition.entries = [];
      for (const session of this.#sessions) {
        session.next.set(number, 0n);
        send(session.socket, {
          type: "cursor_reset",
          partition: number,
          reason: "topic_recreated",
          nextOffset: "0",
          epoch,
        });
      }
    }
  }

  addPartition(partition: number): void {
    this.#partitions.set(partition, { low: 0n, entries: [] });
    for (const session of this.#sessions) {
      session.next.set(partition, 0n);
      send(session.socket, { type: "partition_added", partition, from: "0" });
    }
  }

  /** Sends raw bytes or text to every session. */
  sendRaw(data: string | Uint8Array): void {
    for (const { socket } of this.#sessions) {
      socket.send(data);
    }
  }

  #append(partition: number, entry: Entry): void {
    this.#partition(partition).entries.push(entry);
    this.#pushAll();
  }

  #partition(partition: number): Partition {
    const found = this.#partitions.get(partition);
    if (found === undefined) {
      throw new Error(`no partition ${partition}`);
    }
    return found;
  }

  #onConnection(socket: WebSocket): void {
    socket.on("message", (data, isBinary) => {
      if (!isBinary) {
        this.#onText(socket, JSON.parse(String(data)) as Hello & { offsets?: Record<string, string> });
      }
    });
    socket.on("close", () => {
      for (const session of this.#sessions) {
        if (session.socket === socket) {
          this.#sessions.delete(session);
        }
      }
    });
    socket.on("error", () => socket.terminate());
  }

  #onText(socket: WebSocket, frame: Hello & { offsets?: Record<string, string> }): void {
    if (frame.type === "hello") {
      this.hellos.push(frame);
      this.#begin({ socket, next: new Map(), state: "parked", replayed: 0, pages: 0 }, frame);
    } else if (frame.type === "resume") {
      this.resumes.push(frame);
      const session = [...this.#sessions].find((open) => open.socket === socket);
      if (session !== undefined) {
        this.#begin(session, frame);
      }
    } else if (frame.type === "applied" && frame.offsets !== undefined) {
      this.applied.push(frame.offsets);
    } else if (frame.type === "ping") {
      send(socket, { type: "pong" });
    }
  }

  #begin(session: Session, asked: Hello): void {
    const { socket } = session;
    const isStale = asked.epoch !== undefined && asked.epoch !== this.epoch;
    const partitions: Record<string, { from: string; low: string; next: string }> = {};
    for (const [number, { low }] of this.#partitions) {
      const from = isStale ? low : this.#startOf(asked, number);
      session.next.set(number, from);
      partitions[number] = { from: String(from), low: String(low), next: String(this.end(number)) };
    }
    send(socket, {
      type: "welcome",
      protocol: "dashstream.v2",
      session: "fake",
      epoch: this.epoch,
      topic: "agent-runs",
      resumeNamespace: this.namespace,
      heartbeatMs: this.#options.heartbeatMs,
      idleTimeoutMs: 60_000,
      partitions,
    });
    if (isStale) {
      for (const [partition, next] of session.next) {
        const { epoch } = this;
        send(socket, { type: "cursor_reset", partition, reason: "topic_recreated", epoch, nextOffset: String(next) });
      }
    }
    session.state = "replaying";
    session.replayed = 0;
    session.pages = 0;
    this.#sessions.add(session);
    this.#replay(session);
    this.#heartbeat();
  }

  /** Page after page, to the end of the log or as far as one replay goes. */
  #replay(session: Session): void {
    const { pageSize, maxTotal } = this.#options;
    while (session.state === "replaying") {
      if (this.#left(session) === 0n) {
        this.#complete(session, "live");
      } else if (this.timeouts > 0) {
        this.timeouts -= 1;
        send(session.socket, { type: "error", code: "replay_timeout", message: "history could not be read in time" });
        this.#complete(session, "parked");
      } else if (session.replayed >= maxTotal) {
        this.#complete(session, "parked");
      } else if (this.#pages > 0) {
        this.#pages -= 1;
        session.replayed += this.#push(session, Math.min(pageSize, maxTotal - session.replayed));
        this.#tellProgress(session);
      } else {
        return;
      }
    }
  }

  #tellProgress(session: Session): void {
    session.pages += 1;
    const remaining = this.#left(session);
    const percent = Number((BigInt(session.replayed) * 100n) / (BigInt(session.replayed) + remaining));
    const { pages: page, replayed: totalReplayed } = session;
    send(session.socket, { type: "replay_progress", page, totalReplayed, remaining: String(remaining), percent });
  }

  #complete(session: Session, state: "live" | "parked"): void {
    session.state = state;
    const capped = state === "parked";
    send(session.socket, { type: "replay_complete", mode: "partition", totalReplayed: session.replayed, capped });
  }

  #left(session: Session): bigint {
    let left = 0n;
    for (const [partition, next] of session.next) {
      left += this.end(partition) - next;
    }
    return left;
  }

  #startOf(hello: Hello, partition: number): bigint {
    const { low, entries } = this.#partition(partition);
    if (hello.from === "latest") {
      return this.end(partition);
    }
    if (hello.from === "time") {
      const at = entries.findIndex((entry) => entry.type === "record" && entry.timestampMs >= Number(hello.time));
      return at < 0 ? this.end(partition) : low + BigInt(at);
    }
    const last = hello.from === "cursor" ? hello.lastOffsetsByPartition?.[partition] : undefined;
    return last === undefined ? low : BigInt(last) + 1n;
  }

  /** What happens to the log within `action` is sent after it, in few frames. */
  together(action: () => void): void {
    this.#isHeld = true;
    action();
    this.#isHeld = false;
    this.#pushAll();
  }

  #pushAll(): void {
    if (this.#isHeld) {
      return;
    }
    for (const session of this.#sessions) {
      if (session.state === "live") {
        this.#push(session, Number.POSITIVE_INFINITY);
      }
    }
  }

  /** Sends at most so many offsets, of all partitions in turn. Returns how many. */
  #push(session: Session, allowed: number): number {
    let sent = 0;
    for (const partition of this.#partitions.keys()) {
      let next = session.next.get(partition) ?? 0n;
      while (next < this.end(partition) && sent < allowed) {
        const before = next;
        next = this.#pushFrame(session, partition, next, Math.min(FRAME_LIMIT, allowed - sent));
        sent += Number(next - before);
      }
      session.next.set(partition, next);
    }
    return sent;
  }

  #pushFrame(session: Session, partition: number, from: bigint, limit: number): bigint {
    const { low, entries } = this.#partition(partition);
    if (from < low) {
      return this.#pushRetention(session, partition, from, low);
    }
    const hole = this.#holes.get(partition);
    let first = from;
    if (hole !== undefined && hole.times > 0 && from + 1n < this.end(partition)) {
      hole.times -= 1;
      first = from + 1n;
    }
    const start = Number(first - low);
    const chunk = entries.slice(start, start + limit);
    const next = first + BigInt(chunk.length);
    this.#sendFrame(session, partition, first, next, toItems(chunk, first));
    return next;
  }

  /** Retention has passed the session's position. */
  #pushRetention(session: Session, partition: number, from: bigint, low: bigint): bigint {
    const gap: Entry[] = Array.from({ length: Number(low - from) }, () => ({
      type: "gap",
      reason: GapReason.RETENTION,
    }));
    this.#sendFrame(session, partition, from, low, toItems(gap, from));
    const { epoch } = this;
    send(session.socket, { type: "cursor_reset", partition, reason: "retention", epoch, nextOffset: String(low) });
    return low;
  }

  #sendFrame(session: Session, partition: number, firstOffset: bigint, nextOffset: bigint, items: Item[]): void {
    const frame = create(FrameSchema, { partition, firstOffset, nextOffset, items });
    session.socket.send(toBinary(FrameSchema, frame));
  }

  #heartbeat(): void {
    const nextOffsets: Record<string, string> = {};
    for (const partition of this.#partitions.keys()) {
      nextOffsets[partition] = String(this.end(partition));
    }
    for (const { socket } of this.#sessions) {
      send(socket, { type: "heartbeat", serverTimeMs: Date.now(), nextOffsets, ingest: this.ingest });
    }
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    if (path === "/version") {
      json(response, { version: "fake", epoch: this.epoch, resume_namespace: this.namespace });
    } else if (path === "/health") {
      json(response, { status: this.ingest.status });
    } else {
      this.#servePage(path, response);
    }
  }

  #servePage(path: string, response: ServerResponse): void {
    const file =
      this.#options.page === null ? "" : join(this.#options.page, normalize(path === "/" ? "/index.html" : path));
    if (file === "" || !existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404).end("not found");
      return;
    }
    response.writeHead(200, { "content-type": CONTENT_TYPES[extname(file)] ?? "application/octet-stream" });
    createReadStream(file).pipe(response);
  }
}

const CONTENT_TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};

function json(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function send(socket: WebSocket, frame: unknown): void {
  socket.send(JSON.stringify(frame));
}

/** Items of a run of entries; neighbours of the same kind and reason become one range. */
function toItems(entries: Entry[], first: bigint): Item[] {
  const items: Item[] = [];
  let at = first;
  for (const entry of entries) {
    const last = items[items.length - 1];
    if (entry.type === "record") {
      const { value, findings } = entry;
      items.push(
        create(ItemSchema, {
          kind: { case: "record", value: { offset: at, timestampMs: BigInt(entry.timestampMs), value, findings } },
        }),
      );
    } else if (last?.kind.case === entry.type && last.kind.value.reason === entry.reason) {
      last.kind.value.nextOffset = at + 1n;
    } else {
      const range = { firstOffset: at, nextOffset: at + 1n };
      items.push(
        create(ItemSchema, {
          kind:
            entry.type === "skip"
              ? { case: "skip", value: { ...range, reason: entry.reason } }
              : { case: "gap", value: { ...range, reason: entry.reason } },
        }),
      );
    }
    at += 1n;
  }
  return items;
}

export { FindingKind, GapReason, SkipReason };
