// Believable agent runs for the stand-in, so that the page has something to show without the service.

import { EventType, ToolExecution_ExecutionStage } from "../src/wire/generated/dashstream_pb";
import { type FakeOptions, FakeServer, FindingKind, SkipReason } from "./fake_server";
import { attributes, type Body, framed } from "./messages";

const TENANTS = ["acme", "globex", "initech"];
const GRAPHS = ["support-triage", "research-report", "invoice-check"];
const NODES = ["plan", "retrieve", "rank", "draft", "review"];
const WORDS = ["The ", "order ", "was ", "shipped ", "on ", "Monday ", "and ", "arrives ", "today."];

interface Demo {
  server: FakeServer;
  stop(): Promise<void>;
}

/** Starts a stand-in that makes up runs, `perSecond` messages a second. */
export async function startDemo(port: number, perSecond = 40, options: FakeOptions = {}): Promise<Demo> {
  const server = new FakeServer({ port, partitions: 8, heartbeatMs: 1000, ...options });
  await server.start();
  const random = mulberry(7);
  const runs: Generator<Body, void>[] = [];
  const partitions = new Map<Generator<Body, void>, number>();
  let made = 0;
  const timer = setInterval(() => {
    for (let i = 0; i < Math.max(1, perSecond / 20); i += 1) {
      if (runs.length < 10) {
        const run = agentRun(made, random);
        partitions.set(run, made % 8);
        runs.push(run);
        made += 1;
      }
      step(server, runs, partitions, random);
    }
  }, 50);
  return {
    server,
    async stop() {
      clearInterval(timer);
      await server.stop();
    },
  };
}

function step(
  server: FakeServer,
  runs: Generator<Body, void>[],
  partitions: Map<Generator<Body, void>, number>,
  random: () => number,
): void {
  const index = Math.floor(random() * runs.length);
  const run = runs[index];
  const next = run?.next();
  if (run === undefined || next === undefined || next.done) {
    runs.splice(index, 1);
    return;
  }
  const partition = partitions.get(run) ?? 0;
  const sequence = next.value.value?.header?.sequence ?? 0n;
  const roll = random();
  const findings = roll < 0.008 ? [{ kind: FindingKind.GAP, expected: sequence, found: sequence + 3n }] : [];
  server.record(partition, framed(next.value), findings);
  if (roll > 0.99) {
    server.skip(partition, 1, SkipReason.NO_RECORD);
  } else if (roll > 0.987) {
    server.skip(partition, 1, SkipReason.INVALID_PROTOBUF);
  }
}

function* agentRun(number: number, random: () => number): Generator<Body, void> {
  const tenantId = pick(TENANTS, random);
  const graph = pick(GRAPHS, random);
  const threadId = `${graph}-${(4096 + number * 977).toString(16)}`;
  let sequence = 0n;
  const header = () => {
    sequence += 1n;
    return {
      tenantId,
      threadId,
      sequence,
      timestampUs: BigInt(Date.now()) * 1000n + BigInt(Math.floor(random() * 1000)),
    };
  };
  const event = (
    eventType: EventType,
    nodeId: string,
    plain: Record<string, string | bigint | number | boolean> = {},
    ms = 0,
  ): Body => ({
    case: "event",
    value: {
      header: header(),
      eventType,
      nodeId,
      attributes: attributes(plain),
      durationUs: BigInt(Math.round(ms * 1000)),
    },
  });
  yield event(EventType.GRAPH_START, "", { graph_name: graph, initial_state: "{}" });
  for (const node of NODES) {
    yield event(EventType.NODE_START, node, { attempt: 1n });
    if (node === "retrieve") {
      yield* toolCall(header, random);
    }
    if (node === "draft" || node === "plan") {
      yield event(EventType.LLM_START, node, { model: "fast-1", temperature: 0.2 });
      for (let i = 0; i < WORDS.length; i += 1) {
        yield {
          case: "tokenChunk",
          value: {
            header: header(),
            text: WORDS[i] ?? "",
            model: "fast-1",
            chunkIndex: i,
            isFinal: i === WORDS.length - 1,
            requestId: `req-${number}`,
          },
        };
      }
      yield event(EventType.LLM_END, node, { tokens_total: 412n, cost_usd: 0.0031 }, 830 + random() * 400);
    }
    if (random() < 0.06) {
      yield event(EventType.NODE_ERROR, node, { error: "upstream timed out after 10 s" }, 10_000);
      yield event(EventType.GRAPH_ERROR, "", { error: `node ${node} failed` });
      return;
    }
    yield {
      case: "stateDiff",
      value: {
        header: header(),
        operations: [
          { op: 2, path: `/steps/${node}`, value: text('{"done":true}') },
          { op: 0, path: "/log/-", value: text(`"${node} finished"`) },
        ],
      },
    };
    yield event(EventType.NODE_END, node, { ok: true }, 40 + random() * 1800);
  }
  yield {
    case: "checkpoint",
    value: {
      header: header(),
      state: text(`{"steps":${JSON.stringify(NODES)},"total":9007199254740993}`),
      stateType: "RunState",
    },
  };
  yield {
    case: "metrics",
    value: {
      header: header(),
      scope: "graph",
      scopeId: graph,
      metrics: {
        tokens_total: { value: { case: "intValue", value: 1873n } },
        cost_usd: { value: { case: "floatValue", value: 0.0142 }, unit: "USD" },
      },
    },
  };
  yield event(EventType.GRAPH_END, "", { status: "ok" }, 5200 + random() * 3000);
}

function* toolCall(
  header: () => { tenantId: string; threadId: string; sequence: bigint; timestampUs: bigint },
  random: () => number,
): Generator<Body, void> {
  const call = (stage: ToolExecution_ExecutionStage, extra: object = {}): Body => ({
    case: "toolExecution",
    value: { header: header(), callId: "c1", toolName: "search_documents", stage, ...extra },
  });
  yield call(ToolExecution_ExecutionStage.STARTED, { arguments: text('{"query":"delivery date","limit":5}') });
  if (random() < 0.25) {
    yield call(ToolExecution_ExecutionStage.RETRYING, { error: "connection reset", retryCount: 1 });
  }
  yield call(ToolExecution_ExecutionStage.COMPLETED, {
    durationUs: 142_000n,
    result: text('{"hits":[{"id":81,"score":0.92}]}'),
  });
}

function pick(list: string[], random: () => number): string {
  return list[Math.floor(random() * list.length)] ?? "";
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** A small seeded generator of numbers in [0, 1). */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
