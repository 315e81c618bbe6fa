// The state of the page: stream events in, rows and figures out. No React, no clock, no browser.

import type { ConnectionStatus, Mode, PartitionStart, StreamEvent } from "../stream/events";
import type { DecodedFrame } from "../wire/frame";
import { DEFAULT_FRAMING } from "../wire/limits";
import { Alerts } from "./alerts";
import { Loading } from "./loading";
import { Partitions } from "./partitions";
import { Pipeline } from "./pipeline";
import { Rate } from "./rates";
import { Ring } from "./ring";
import {
  historyRow,
  liveRow,
  mergeSkips,
  noteRow,
  type RangeRow,
  type Row,
  rangeRow,
  recordRow,
  resetRow,
} from "./rows";
import { Runs } from "./runs";

export interface Limits {
  maxRows: number;
  maxRowBytes: number;
  maxRuns: number;
}

export const DEFAULT_LIMITS: Limits = { maxRows: 20_000, maxRowBytes: 64 * 1024 * 1024, maxRuns: 500 };

export interface Totals {
  records: number;
  undecodable: number;
  findings: number;
  lost: bigint;
}

const NOTHING: Readonly<Totals> = { records: 0, undecodable: 0, findings: 0, lost: 0n };

export class Model {
  readonly rows: Ring<Row>;
  readonly runs: Runs;
  readonly partitions = new Partitions();
  readonly pipeline = new Pipeline();
  readonly alerts = new Alerts();
  readonly recordRate = new Rate();
  readonly byteRate = new Rate();
  readonly totals: Totals = { ...NOTHING };
  connection: ConnectionStatus = { state: "connecting", attempt: 0 };
  topic = "";
  /** What the service accepts as the value of a record. */
  framing = DEFAULT_FRAMING;
  backlog = { frames: 0, bytes: 0 };
  /** What the page waits for until it is live. */
  loading: Loading | null = null;
  #nextId = 1;
  #wasConnected = false;
  #asksForToken = false;
  #isShutOut = false;

  constructor(limits: Limits = DEFAULT_LIMITS) {
    this.rows = new Ring(limits.maxRows, limits.maxRowBytes);
    this.runs = new Runs(limits.maxRuns);
  }

  /** Applies one event; `nowMs` is monotonic. */
  apply(event: StreamEvent, nowMs: number): void {
    switch (event.type) {
      case "version":
        this.framing = event.version.framing;
        this.#asksForToken = event.version.asksForToken;
        return;
      case "status":
        this.#onStatus(event.status);
        return;
      case "wish":
        this.loading = event.history === null ? null : new Loading(event.history, nowMs);
        return;
      case "welcome":
        this.#onWelcome(event, nowMs);
        return;
      case "data":
        this.#onData(event.frame, event.waitedMs, nowMs);
        return;
      case "partition_added":
        this.partitions.add(event.start, nowMs);
        this.#note("info", `Partition ${event.start.partition} was added to the topic.`);
        return;
      case "reset":
        this.#onReset(event);
        return;
      case "hole":
        this.#onHole(event);
        return;
      case "progress":
        this.loading?.left(event.remaining);
        return;
      case "caught_up":
        this.#onCaughtUp();
        return;
      case "heartbeat":
        this.pipeline.hear(event.heartbeat.status, event.heartbeat.reasons, nowMs);
        this.partitions.ends(event.heartbeat.nextOffsets, nowMs);
        return;
      case "backlog":
        this.backlog = { frames: event.frames, bytes: event.bytes };
        return;
      case "notice":
        this.#note(event.level, sentence(event.text));
        this.alerts.raise(event.topic, event.level, sentence(event.text));
        return;
    }
  }

  /** Whether the service asks for a token, and the last attempt has not let this page in. */
  get wantsToken(): boolean {
    return this.#asksForToken && this.#isShutOut;
  }

  /** Forgets the rows, not the positions. */
  clearRows(): void {
    this.rows.clear();
  }

  #onStatus(status: ConnectionStatus): void {
    const before = this.connection.state;
    this.connection = status;
    const wasConnected = before === "live" || before === "catching_up";
    if (status.state === "stopped" || (status.state === "waiting" && before === "connecting")) {
      this.#isShutOut = true;
    } else if (status.state === "live" || status.state === "catching_up") {
      this.#isShutOut = false;
    }
    if (status.state === "stopped") {
      this.#note("error", `Stopped: ${status.reason}.`);
      this.alerts.raise(
        "stopped",
        "error",
        `This page has stopped: ${status.reason}. It does not reconnect by itself.`,
      );
    } else if (status.state === "waiting" && wasConnected && !this.#isJustSaid(status.reason)) {
      this.#note("warning", `Disconnected: ${status.reason}.`);
    } else if (status.state === "live") {
      this.alerts.dismiss("stopped");
    }
  }

  #onWelcome(event: StreamEvent & { type: "welcome" }, nowMs: number): void {
    const { mode, history, partitions } = event;
    this.topic = event.topic;
    this.pipeline.expect(event.heartbeatMs);
    if (history !== null) {
      this.#beginAnew();
      this.rows.push(historyRow(this.#id(), history));
      this.loading = new Loading(history, nowMs);
    } else if (mode === "jump" || mode === "first") {
      this.loading = null;
    } else {
      // A lost connection does not end a load of history.
      this.loading ??= new Loading(null, nowMs);
    }
    const goesOn = mode === "resume" || mode === "on";
    this.partitions.begin(partitions, goesOn, nowMs);
    this.loading?.left(distance(partitions));
    this.#noteConnected(mode);
  }

  /** What is shown begins anew, at another place of the same stream. */
  #beginAnew(): void {
    this.rows.clear();
    this.runs.clear();
    this.partitions.clear();
    Object.assign(this.totals, NOTHING);
  }

  #noteConnected(mode: Mode): void {
    if (mode === "resume") {
      this.#note("info", "Connected; going on where this page stopped.");
    } else if (mode === "jump" || (mode === "first" && this.#wasConnected)) {
      this.#note("info", "Connected at the newest event.");
    } else if (mode === "first") {
      this.#note("info", "Connected for the first time; showing what arrives from now on.");
    }
    this.#wasConnected = true;
  }

  #onCaughtUp(): void {
    const { loading } = this;
    this.loading = null;
    if (loading !== null && (loading.history !== null || loading.records > 0)) {
      this.rows.push(liveRow(this.#id(), loading.records, loading.history !== null));
    }
  }

  #onData(frame: DecodedFrame, waitedMs: number, nowMs: number): void {
    let records = 0;
    let lost = 0n;
    for (const item of frame.items) {
      if (item.type === "record") {
        records += 1;
        const row = recordRow(this.#id(), frame.partition, item);
        this.rows.push(row);
        this.totals.undecodable += row.failure === null ? 0 : 1;
        this.totals.findings += row.findings.length;
        for (const touch of row.summary?.touches ?? []) {
          this.runs.touch(touch, row.summary?.name ?? "", row.timeMs);
        }
        continue;
      }
      const size = item.next - item.first;
      lost += item.type === "gap" ? size : 0n;
      this.#pushRange(rangeRow(this.#id(), frame.partition, item));
    }
    this.totals.records += records;
    this.totals.lost += lost;
    this.partitions.applied(frame.partition, frame.next, records, lost, waitedMs);
    this.loading?.applied(frame.next - frame.first, records);
    this.recordRate.add(records, nowMs);
    this.byteRate.add(frame.bytes, nowMs);
  }

  #onReset(event: StreamEvent & { type: "reset" }): void {
    const { partition, reason, newEpoch, nextOffset } = event;
    this.partitions.reset(partition, nextOffset, newEpoch);
    this.rows.push(resetRow(this.#id(), event));
    if (newEpoch) {
      // What was left, and the runs that were under way, belonged to the log that is gone.
      this.loading?.left(null);
      this.runs.clear();
    }
    const what = newEpoch
      ? "; stored positions were dropped"
      : reason === "retention"
        ? "; what lies before it is no longer kept"
        : "";
    this.alerts.raise(
      `reset:${reason}`,
      "warning",
      `The stream was reset (${reason}). Partition ${partition} goes on at offset ${nextOffset}${what}.`,
    );
  }

  #onHole(event: StreamEvent & { type: "hole" }): void {
    const { partition, first, next, reason } = event;
    const lost = reason === "jumped" ? 0n : next - first;
    this.partitions.passOver(partition, next, lost);
    this.totals.lost += lost;
    this.#pushRange(rangeRow(this.#id(), partition, { type: "hole", first, next, reason }));
  }

  #pushRange(row: RangeRow): void {
    const merged = mergeSkips(this.rows.last(), row);
    if (merged === null) {
      this.rows.push(row);
    } else {
      this.rows.replaceLast(merged);
    }
  }

  /** A fault is noted before the connection that it ends. */
  #isJustSaid(reason: string): boolean {
    const last = this.rows.last();
    return last?.type === "note" && last.level === "error" && last.text === sentence(reason);
  }

  #note(level: "info" | "warning" | "error", text: string): void {
    this.rows.push(noteRow(this.#id(), level, text));
  }

  #id(): number {
    const id = this.#nextId;
    this.#nextId += 1;
    return id;
  }
}

function sentence(text: string): string {
  const end = /[.!?]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}

/** Offsets between where partitions begin and where the service's log ends. */
function distance(starts: PartitionStart[]): bigint {
  return starts.reduce((sum, { from, next }) => sum + (next > from ? next - from : 0n), 0n);
}
