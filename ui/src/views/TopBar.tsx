// What a person needs to know first: is this live, is the service well, how much comes in.

import type { ApplyLag } from "../model/partitions";
import type { PipelineView } from "../model/pipeline";
import type { Snapshot } from "../store/store";
import type { ConnectionStatus } from "../stream/events";
import type { Place } from "../wire/hello";
import { formatBytes } from "../wire/units";
import { count, milliseconds, rate, words } from "./format";

export interface Commands {
  retryNow(): void;
  goTo(place: Place): void;
  /** Shows the service a token from now on. */
  showToken(token: string): void;
}

type Tone = "good" | "busy" | "warn" | "bad" | "unknown";

export function TopBar({ snapshot, commands }: { snapshot: Snapshot; commands: Commands }) {
  const { connection, pipeline, totals, topic } = snapshot;
  return (
    <header className="topbar">
      <div className="brand">
        <Mark />
        <div>
          <h1>DashStream</h1>
          <p className="topic" title="Kafka topic">
            {topic === "" ? "no topic yet" : topic}
          </p>
        </div>
      </div>
      <div className="signals" role="status" aria-live="polite">
        <Signal
          label="Stream"
          tone={connectionTone(connection)}
          text={connectionText(connection, snapshot.nowMs)}
          title={"reason" in connection ? connection.reason : ""}
        >
          {connection.state === "waiting" || connection.state === "stopped" ? (
            <button type="button" className="link" onClick={commands.retryNow}>
              Try now
            </button>
          ) : null}
        </Signal>
        <PipelineSignal pipeline={pipeline} />
      </div>
      <dl className="figures">
        <Figure label="Records/s" value={rate(snapshot.recordsPerSecond)} />
        <Figure label="Data/s" value={formatBytes(Math.round(snapshot.bytesPerSecond))} />
        <Figure label="Records" value={count(totals.records)} />
        <Figure label="Findings" value={count(totals.findings)} tone={totals.findings > 0 ? "warn" : null} />
        <Figure label="Unreadable" value={count(totals.undecodable)} tone={totals.undecodable > 0 ? "warn" : null} />
        <Figure label="Lost offsets" value={count(totals.lost)} tone={totals.lost > 0n ? "bad" : null} />
        <ApplyLagFigure lag={snapshot.applyLag} backlog={snapshot.backlog} />
      </dl>
    </header>
  );
}

function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M7 11h11M7 16h18M7 21h8" />
      <circle cx="22" cy="11" r="2.2" />
      <circle cx="19" cy="21" r="2.2" />
    </svg>
  );
}

function Signal(props: { label: string; tone: Tone; text: string; title?: string; children?: React.ReactNode }) {
  return (
    <div className="signal" title={props.title}>
      <span className="signal-label">{props.label}</span>
      <span className={`signal-value tone-${props.tone}`}>
        <span className="dot" aria-hidden="true" />
        <span data-testid={`signal-${props.label.toLowerCase()}`}>{props.text}</span>
        {props.children}
      </span>
    </div>
  );
}

function PipelineSignal({ pipeline }: { pipeline: PipelineView }) {
  const reasons = pipeline.reasons.map(words).join("; ");
  const text = reasons === "" ? pipeline.state : `${pipeline.state}: ${reasons}`;
  return <Signal label="Service" tone={pipelineTone(pipeline.state)} text={text} title={text} />;
}

const SLOW_MS = 5_000;

/** Two lines of text in one figure: how much, and for how long. */
function ApplyLagFigure({ lag, backlog }: { lag: ApplyLag; backlog: Snapshot["backlog"] }) {
  const title =
    "What the service has read and this page has not shown yet, and for how long the page has known of it. " +
    `Received and waiting to be decoded: ${count(backlog.frames)} frames, ${formatBytes(backlog.bytes)}.`;
  const value = `${count(lag.offsets)} · ${lag.ms < 1000 ? `${Math.round(lag.ms / 100) / 10} s` : milliseconds(lag.ms)}`;
  return <Figure label="Apply lag" value={value} tone={lag.ms > SLOW_MS ? "warn" : null} title={title} />;
}

interface FigureProps {
  label: string;
  value: string;
  tone?: "warn" | "bad" | null;
  title?: string;
}

function Figure({ label, value, tone = null, title }: FigureProps) {
  return (
    <div className="figure" title={title}>
      <dt>{label}</dt>
      <dd className={tone === null ? "" : `tone-${tone}`}>{value}</dd>
    </div>
  );
}

function connectionTone(status: ConnectionStatus): Tone {
  switch (status.state) {
    case "live":
      return "good";
    case "connecting":
    case "catching_up":
      return "busy";
    case "waiting":
    case "parked":
      return "warn";
    case "stopped":
      return "bad";
  }
}

function connectionText(status: ConnectionStatus, nowMs: number): string {
  switch (status.state) {
    case "live":
      return "live";
    case "connecting":
      return status.attempt > 0 ? `connecting, attempt ${status.attempt + 1}` : "connecting";
    case "catching_up":
      return "catching up";
    case "parked":
      return "waiting for history";
    case "waiting":
      return `reconnecting in ${Math.max(0, Math.ceil((status.untilMs - nowMs) / 1000))} s`;
    case "stopped":
      return "stopped";
  }
}

function pipelineTone(state: string): Tone {
  switch (state) {
    case "healthy":
      return "good";
    case "unknown":
      return "unknown";
    case "starting":
      return "busy";
    case "paused":
      return "bad";
    default:
      return "warn";
  }
}
