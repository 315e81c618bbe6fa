// Between the model and the views: many events in, one snapshot per drawn frame out.

import type { Alert } from "../model/alerts";
import { FilteredRows, frozen, live, parseFilter, type RowSource } from "../model/filter";
import type { LoadingView } from "../model/loading";
import { type Limits, Model, type Totals } from "../model/model";
import type { ApplyLag, PartitionState } from "../model/partitions";
import type { PipelineView } from "../model/pipeline";
import { Ring } from "../model/ring";
import type { Row } from "../model/rows";
import type { Run } from "../model/runs";
import type { ConnectionStatus, StreamEvent } from "../stream/events";
import type { Framing } from "../wire/limits";

export interface Snapshot {
  /** Changes with every snapshot. */
  version: number;
  /** Monotonic time of the snapshot, for what is counted down. */
  nowMs: number;
  connection: ConnectionStatus;
  pipeline: PipelineView;
  topic: string;
  framing: Framing;
  /** Whether somebody has to show a token before this page is let in. */
  wantsToken: boolean;
  totals: Totals;
  recordsPerSecond: number;
  bytesPerSecond: number;
  backlog: { frames: number; bytes: number };
  partitions: PartitionState[];
  runs: Run[];
  runCount: number;
  alerts: Alert[];
  rows: RowSource;
  /** Rows that came since the view was paused; null while it is not. */
  waitingRows: number | null;
  filter: string;
  /** Rows of the list that are no longer kept, whatever the filter. */
  forgotten: number;
  /** History that is being loaded, or what was missed in an absence; null when there is nothing to wait for. */
  loading: LoadingView | null;
  /** What the service has and this page has not applied. */
  applyLag: ApplyLag;
}

export interface StoreEnvironment {
  now(): number;
  /** Calls back before the next frame is drawn. */
  requestFrame(action: () => void): void;
  /** Calls back every `ms` milliseconds; for figures that change without events. */
  every(ms: number, action: () => void): void;
}

const SHOWN_RUNS = 100;
const TICK_MS = 500;

export class Store {
  readonly #env: StoreEnvironment;
  readonly #model: Model;
  readonly #live: RowSource;
  #listeners = new Set<() => void>();
  #filter = "";
  #filtered: FilteredRows | null = null;
  #paused: { rows: RowSource; end: number; ring: Ring<Row> } | null = null;
  #isScheduled = false;
  #version = 0;
  #snapshot: Snapshot;

  constructor(env: StoreEnvironment, limits?: Limits) {
    this.#env = env;
    this.#model = new Model(limits);
    this.#live = live(this.#model.rows);
    this.#snapshot = this.#take();
    env.every(TICK_MS, () => this.#schedule());
  }

  /** The event is in the model when this returns; views see it with the next frame. */
  readonly apply = (event: StreamEvent): void => {
    this.#model.apply(event, this.#env.now());
    this.#schedule();
  };

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly getSnapshot = (): Snapshot => this.#snapshot;

  /** Freezes the rows that are shown, not the stream. */
  readonly pause = (): void => {
    if (this.#paused === null) {
      const { rows } = this.#model;
      const kept = rows.toArray();
      const ring = new Ring<Row>(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
      for (const row of kept) {
        ring.push(row);
      }
      this.#paused = { rows: frozen(kept, rows.first), end: rows.end, ring };
      this.#refilter();
      this.#commit();
    }
  };

  /** Shows everything that came meanwhile. */
  readonly resume = (): void => {
    this.#paused = null;
    this.#refilter();
    this.#commit();
  };

  readonly setFilter = (text: string): void => {
    this.#filter = text;
    this.#refilter();
    this.#commit();
  };

  readonly clearRows = (): void => {
    this.#model.clearRows();
    this.#paused = null;
    this.#refilter();
    this.#commit();
  };

  readonly dismiss = (key: string): void => {
    this.#model.alerts.dismiss(key);
    this.#commit();
  };

  #refilter(): void {
    const test = parseFilter(this.#filter);
    this.#filtered = test === null ? null : new FilteredRows(this.#paused?.ring ?? this.#model.rows, test);
  }

  #schedule(): void {
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      this.#env.requestFrame(() => {
        this.#isScheduled = false;
        this.#commit();
      });
    }
  }

  #commit(): void {
    this.#filtered?.refresh();
    this.#snapshot = this.#take();
    for (const listener of this.#listeners) {
      listener();
    }
  }

  #take(): Snapshot {
    const model = this.#model;
    const nowMs = this.#env.now();
    this.#version += 1;
    return {
      version: this.#version,
      nowMs,
      connection: model.connection,
      pipeline: model.pipeline.view(nowMs),
      topic: model.topic,
      framing: model.framing,
      wantsToken: model.wantsToken,
      totals: { ...model.totals },
      recordsPerSecond: model.recordRate.perSecond(nowMs),
      bytesPerSecond: model.byteRate.perSecond(nowMs),
      backlog: model.backlog,
      loading: model.loading?.view() ?? null,
      applyLag: model.partitions.applyLag(nowMs),
      partitions: model.partitions.list(),
      runs: model.runs.latest(SHOWN_RUNS),
      runCount: model.runs.size,
      alerts: model.alerts.list(),
      rows: this.#filtered ?? this.#paused?.rows ?? this.#live,
      waitingRows: this.#paused === null ? null : model.rows.end - this.#paused.end,
      filter: this.#filter,
      forgotten: model.rows.forgotten,
    };
  }
}
