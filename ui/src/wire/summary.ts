// What a list shows of a message: a few short texts, bounded whatever the message holds.
//
// Plain data, so that it can cross a worker boundary. The message itself is decoded again when somebody opens it.

import { summarizeAttributes, summarizeMetrics } from "./attributes";
import {
  type Checkpoint,
  type DashStreamMessage,
  DiffOperation_OpType,
  Error_Severity,
  type Error as ErrorMessage,
  type Event,
  type EventBatch,
  EventType,
  type ExecutionTrace,
  type Header,
  type StateDiff,
  type TokenChunk,
  type ToolExecution,
  ToolExecution_ExecutionStage,
} from "./generated/dashstream_pb";
import { cut } from "./numbers";
import { formatBytes, formatDuration } from "./units";

export type MessageKind =
  | "event"
  | "state_diff"
  | "token_chunk"
  | "tool_execution"
  | "checkpoint"
  | "metrics"
  | "error"
  | "event_batch"
  | "execution_trace";

export type Level = "normal" | "warning" | "error";

/** What a message says about the state of its run; null when it only proves that the run is alive. */
export type RunSignal = "started" | "completed" | "failed" | "waiting" | "resumed" | null;

export interface RunTouch {
  /** Which run: of tenant and thread as they are, not as they are shown. */
  key: string;
  tenant: string;
  thread: string;
  signal: RunSignal;
  /** Graph name where the message tells it, else empty. */
  graph: string;
  node: string;
  events: number;
  errors: number;
}

export interface Summary {
  kind: MessageKind;
  /** What happened, as `node_start` or `tool completed`. */
  name: string;
  tenant: string;
  thread: string;
  node: string;
  detail: string;
  level: Level;
  /** The producer's number within the thread; 0 means not numbered. */
  sequence: bigint;
  /** Producer's clock, Unix microseconds; 0 when missing. */
  timeUs: bigint;
  touches: RunTouch[];
}

const MAX_ID_CHARS = 96;
/** As much of an id as filters of the service compare. */
const MAX_KEY_CHARS = 1024;
const MAX_DETAIL_CHARS = 240;
const MAX_TOUCHES = 64;

/** Summarises a decoded message. */
export function summarize(message: DashStreamMessage): Summary {
  const body = message.message;
  switch (body.case) {
    case "event":
      return ofEvent(body.value);
    case "eventBatch":
      return ofBatch(body.value);
    case "stateDiff":
      return base("state_diff", "state diff", body.value.header, { detail: diffDetail(body.value) });
    case "tokenChunk":
      return base("token_chunk", "token chunk", body.value.header, { detail: tokenDetail(body.value) });
    case "toolExecution":
      return ofTool(body.value);
    case "checkpoint":
      return base("checkpoint", "checkpoint", body.value.header, { detail: checkpointDetail(body.value) });
    case "metrics":
      return base("metrics", "metrics", body.value.header, {
        node: body.value.scopeId,
        detail: summarizeMetrics(body.value.metrics, MAX_DETAIL_CHARS),
      });
    case "error":
      return ofError(body.value);
    case "executionTrace":
      return ofTrace(body.value);
    default:
      return base("event", "unknown", undefined, {});
  }
}

type Parts = Partial<Pick<Summary, "node" | "detail" | "level" | "touches" | "thread">> & { signal?: RunSignal };

function base(kind: MessageKind, name: string, header: Header | undefined, parts: Parts): Summary {
  const run = runOf(header?.tenantId, parts.thread || header?.threadId);
  const { tenant, thread } = run;
  const node = cut(parts.node ?? "", MAX_ID_CHARS);
  const level = parts.level ?? "normal";
  const own: RunTouch = {
    ...run,
    signal: parts.signal ?? null,
    graph: "",
    // A tool or a metric has a name of its own, which is no node of the graph.
    node: kind === "event" ? node : "",
    events: 1,
    errors: level === "error" ? 1 : 0,
  };
  return {
    kind,
    name,
    tenant,
    thread,
    node,
    detail: cut(oneLine(parts.detail ?? ""), MAX_DETAIL_CHARS),
    level,
    sequence: header?.sequence ?? 0n,
    timeUs: header?.timestampUs ?? 0n,
    touches: parts.touches ?? (thread === "" ? [] : [own]),
  };
}

/** Whose run it is, as it is shown, and a key that tells apart what looks the same when it is cut. */
function runOf(tenantId = "", threadId = ""): Pick<RunTouch, "key" | "tenant" | "thread"> {
  const [tenant, thread] = [cut(tenantId, MAX_ID_CHARS), cut(threadId, MAX_ID_CHARS)];
  return { key: `${cut(tenantId, MAX_KEY_CHARS)}\u0000${cut(threadId, MAX_KEY_CHARS)}`, tenant, thread };
}

function oneLine(text: string): string {
  return cut(text, MAX_DETAIL_CHARS * 2).replace(/\s+/g, " ");
}

/** `NODE_START` → `node_start`; `type 99` for a number that this page does not know. */
export function eventName(type: EventType): string {
  return EventType[type]?.toLowerCase() ?? `type ${type}`;
}

function eventLevel(type: EventType): Level {
  switch (type) {
    case EventType.GRAPH_ERROR:
    case EventType.NODE_ERROR:
    case EventType.LLM_ERROR:
    case EventType.TOOL_ERROR:
      return "error";
    case EventType.LLM_RETRY:
    case EventType.NODE_WARNING:
    case EventType.HUMAN_INTERRUPT:
      return "warning";
    default:
      return "normal";
  }
}

function eventSignal(type: EventType): RunSignal {
  switch (type) {
    case EventType.GRAPH_START:
      return "started";
    case EventType.GRAPH_END:
      return "completed";
    case EventType.GRAPH_ERROR:
      return "failed";
    case EventType.HUMAN_INTERRUPT:
      return "waiting";
    case EventType.HUMAN_RESUME:
      return "resumed";
    default:
      return null;
  }
}

function graphName(event: Event): string {
  const value = event.attributes.graph_name?.value;
  return value?.case === "stringValue" ? cut(value.value, MAX_ID_CHARS) : "";
}

function ofEvent(event: Event): Summary {
  const duration = event.durationUs > 0n ? formatDuration(event.durationUs) : "";
  const attributes = summarizeAttributes(event.attributes, MAX_DETAIL_CHARS);
  const summary = base("event", eventName(event.eventType), event.header, {
    node: event.nodeId,
    detail: [duration, attributes].filter((part) => part !== "").join(" · "),
    level: eventLevel(event.eventType),
    signal: eventSignal(event.eventType),
  });
  for (const touch of summary.touches) {
    touch.graph = graphName(event);
  }
  return summary;
}

function ofBatch(batch: EventBatch): Summary {
  const counts = new Map<string, number>();
  const touches = new Map<string, RunTouch>();
  let level: Level = "normal";
  for (const event of batch.events) {
    const name = eventName(event.eventType);
    counts.set(name, (counts.get(name) ?? 0) + 1);
    const own = eventLevel(event.eventType);
    level = own === "error" || (own === "warning" && level === "normal") ? own : level;
    mergeTouch(touches, event, batch.header);
  }
  const parts: string[] = [];
  for (const [name, count] of counts) {
    parts.push(count === 1 ? name : `${name} ×${count}`);
  }
  const threads = [...touches.values()];
  const only = threads.length === 1 ? threads[0] : undefined;
  return base("event_batch", `batch of ${batch.events.length}`, batch.header, {
    detail: parts.join(", "),
    level,
    touches: threads,
    ...(only === undefined ? {} : { thread: only.thread }),
  });
}

function mergeTouch(touches: Map<string, RunTouch>, event: Event, outer: Header | undefined): void {
  const run = runOf(event.header?.tenantId || outer?.tenantId, event.header?.threadId || outer?.threadId);
  if (run.thread === "") {
    return;
  }
  const { key } = run;
  const known = touches.get(key);
  if (known === undefined && touches.size >= MAX_TOUCHES) {
    return;
  }
  const touch = known ?? { ...run, signal: null, graph: "", node: "", events: 0, errors: 0 };
  touch.events += 1;
  touch.errors += eventLevel(event.eventType) === "error" ? 1 : 0;
  touch.signal = eventSignal(event.eventType) ?? touch.signal;
  touch.graph = graphName(event) || touch.graph;
  touch.node = cut(event.nodeId, MAX_ID_CHARS) || touch.node;
  touches.set(key, touch);
}

function diffDetail(diff: StateDiff): string {
  if (diff.fullState.length > 0) {
    return `full state, ${formatBytes(diff.fullState.length)}`;
  }
  const shown = diff.operations
    .slice(0, 4)
    .map((operation) => `${(DiffOperation_OpType[operation.op] ?? "?").toLowerCase()} ${cut(operation.path, 60)}`);
  const more = diff.operations.length > shown.length ? `, and ${diff.operations.length - shown.length} more` : "";
  return shown.join(", ") + more;
}

function tokenDetail(chunk: TokenChunk): string {
  const text = JSON.stringify(cut(chunk.text, MAX_DETAIL_CHARS - 80));
  return [text, chunk.model, chunk.isFinal ? "final" : ""].filter((part) => part !== "").join(" · ");
}

function checkpointDetail(checkpoint: Checkpoint): string {
  const size = `${formatBytes(checkpoint.state.length)} of state`;
  return checkpoint.stateType === "" ? size : `${cut(checkpoint.stateType, 80)}, ${size}`;
}

function ofTool(tool: ToolExecution): Summary {
  const stage = ToolExecution_ExecutionStage[tool.stage]?.toLowerCase() ?? `stage ${tool.stage}`;
  const failed = tool.stage === ToolExecution_ExecutionStage.FAILED;
  const parts = [
    tool.error,
    tool.durationUs > 0n ? formatDuration(tool.durationUs) : "",
    tool.retryCount > 0 ? `retry ${tool.retryCount}` : "",
  ];
  return base("tool_execution", `tool ${stage}`, tool.header, {
    node: tool.toolName,
    detail: parts.filter((part) => part !== "").join(" · "),
    level: failed ? "error" : tool.stage === ToolExecution_ExecutionStage.RETRYING ? "warning" : "normal",
  });
}

function ofError(error: ErrorMessage): Summary {
  const severity = Error_Severity[error.severity]?.toLowerCase() ?? "error";
  const mild = error.severity === Error_Severity.DEBUG || error.severity === Error_Severity.INFO;
  const level: Level = mild ? "normal" : error.severity === Error_Severity.WARNING ? "warning" : "error";
  const text = [error.errorCode, error.message].filter((part) => part !== "").join(": ");
  return base("error", severity === "unspecified" ? "error" : severity, error.header, { detail: text, level });
}

function ofTrace(trace: ExecutionTrace): Summary {
  const parts = [
    `${trace.nodesExecuted.length} nodes`,
    formatDuration(trace.totalDurationMs * 1000n),
    `${trace.totalTokens} tokens`,
    trace.completed ? "completed" : "not completed",
  ];
  return base("execution_trace", "execution trace", trace.header, {
    thread: trace.threadId,
    detail: parts.join(" · "),
    level: trace.errors.some((error) => !error.recovered) ? "warning" : "normal",
  });
}
