// The state of the page: stream events in, rows and figures out. No React, no clock, no browser.

import type { ConnectionStatus, StreamEvent } from "../stream/events";
import type { DecodedFrame } from "../wire/frame";
import { Alerts } from "./alerts";
import { Partitions } from "./partitions";
import { Pipeline } from "./pipeline";
import { Rate } from "./rates";
import { Ring } from "./ring";
import { mergeSkips, noteRow, type RangeRow, type Row, rangeRow, recordRow } from "./rows";
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
  skipped: bigint;
}

export class Model {
  readonly rows: Ring<Row>;
  readonly runs: Runs;
  readonly partitions = new Partitions();
  readonly pipeline = new Pipeline();
  readonly alerts = new Alerts();
  readonly recordRate = new Rate();
  readonly byteRate = new Rate();
  readonly totals: Totals = { records: 0, undecodable: 0, findings: 0, lost: 0n, skipped: 0n };
  connection: ConnectionStatus = { state: "connecting", attempt: 0 };
  topic = "";
  backlog = { frames: 0, bytes: 0 };
  #nextId = 1;
  #wasConnected = false;

  constructor(limits: Limits = DEFAULT_LIMITS) {
    this.rows = new Ring(limits.maxRows, limits.maxRowBytes);
    this.runs = new Runs(limits.maxRuns);
  }

  /** Applies one event; `nowMs` is monotonic. */
  apply(event: StreamEvent, nowMs: number): void {
    switch (event.type) {
      case "status":
        this.#onStatus(event.status);
        return;
      case "welcome":
        this.topic = event.topic;
        this.pipeline.expect(event.heartbeatMs);
        this.partitions.begin(event.partitions, event.resumed);
        this.#noteConnected(event.resumed);
        return;
      case "data":
        this.#onData(event.frame, event.waitedMs, nowMs);
        return;
      case "partition_added":
        this.partitions.add(event.start);
        this.#note("info", `Partition ${event.start.partition} was added to the topic.`);
        return;
      case "reset":
        this.#onReset(event);
        return;
      case "hole":
        this.#onHole(event);
        return;
      case "caught_up":
        return;
      case "heartbeat":
        this.pipeline.hear(event.heartbeat.status, event.heartbeat.reasons, nowMs);
        this.partitions.ends(event.heartbeat.nextOffsets);
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

  /** Forgets the rows, not the positions. */
  clearRows(): void {
    this.rows.clear();
  }

  #onStatus(status: ConnectionStatus): void {
    const before = this.connection.state;
    this.connection = status;
    const wasConnected = before === "live" || before === "catching_up";
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

  #noteConnected(resumed: boolean): void {
    if (this.#wasConnected || resumed) {
      this.#note("info", resumed ? "Connected; going on where this page stopped." : "Connected at the newest event.");
    } else {
      this.#note("info", "Connected for the first time; showing what arrives from now on.");
    }
    this.#wasConnected = true;
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
      this.totals.skipped += item.type === "skip" ? size : 0n;
      this.#pushRange(rangeRow(this.#id(), frame.partition, item));
    }
    this.totals.records += records;
    this.totals.lost += lost;
    this.partitions.applied(frame.partition, frame.next, records, lost, waitedMs);
    this.recordRate.add(records, nowMs);
    this.byteRate.add(frame.bytes, nowMs);
  }

  #onReset(event: StreamEvent & { type: "reset" }): void {
    const { partition, reason, before, nextOffset } = event;
    this.partitions.reset(partition, nextOffset);
    this.rows.push({ type: "reset", id: this.#id(), bytes: 400, partition, reason, before, nextOffset });
    this.alerts.raise(
      `reset:${reason}`,
      "warning",
      `The stream was reset (${reason}). Partition ${partition} goes on at offset ${nextOffset}; stored positions were dropped.`,
    );
  }

  #onHole(event: StreamEvent & { type: "hole" }): void {
    const { partition, first, next, reason } = event;
    this.partitions.lose(partition, first, next);
    if (reason !== "jumped") {
      this.totals.lost += next - first;
    }
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
