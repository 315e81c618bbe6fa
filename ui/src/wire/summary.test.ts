import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { attributes, type Body, framed } from "../../testing/messages";
import { attributeText } from "./attributes";
import { decodeRecord } from "./decode";
import { AttributeValueSchema, EventType, ToolExecution_ExecutionStage } from "./generated/dashstream_pb";
import { type Summary, summarize } from "./summary";
import { formatDuration } from "./units";

function summary(body: Body): Summary {
  const decoded = decodeRecord(framed(body));
  if (!decoded.ok) {
    throw new Error(decoded.message);
  }
  return summarize(decoded.message);
}

const header = { tenantId: "acme", threadId: "run-1", sequence: 2n ** 60n, timestampUs: 5n };

const EVERY_KIND: [Body, string][] = [
  [{ case: "event", value: { header, eventType: EventType.NODE_START, nodeId: "plan" } }, "event"],
  [{ case: "stateDiff", value: { header, operations: [{ path: "/a" }] } }, "state_diff"],
  [{ case: "tokenChunk", value: { header, text: "hi" } }, "token_chunk"],
  [{ case: "toolExecution", value: { header, toolName: "search" } }, "tool_execution"],
  [{ case: "checkpoint", value: { header } }, "checkpoint"],
  [{ case: "metrics", value: { header } }, "metrics"],
  [{ case: "error", value: { header, message: "broke" } }, "error"],
  [{ case: "eventBatch", value: { header, events: [{ header }] } }, "event_batch"],
  [{ case: "executionTrace", value: { header, threadId: "run-1" } }, "execution_trace"],
];

test.each(EVERY_KIND)("message %# is named and belongs to its run", (body, kind) => {
  expect(summary(body)).toMatchObject({ kind, tenant: "acme", thread: "run-1", sequence: 2n ** 60n, timeUs: 5n });
  expect(summary(body).touches).toMatchObject([{ tenant: "acme", thread: "run-1" }]);
});

test("every text is bounded", () => {
  const long = "x".repeat(100_000);
  const bodies: Body[] = [
    {
      case: "event",
      value: { header: { tenantId: long, threadId: long }, nodeId: long, attributes: attributes({ [long]: long }) },
    },
    { case: "tokenChunk", value: { header, text: long, model: long } },
    { case: "error", value: { header, message: long, errorCode: long } },
    {
      case: "stateDiff",
      value: { header, operations: Array.from({ length: 5000 }, () => ({ path: long.slice(0, 500) })) },
    },
    { case: "toolExecution", value: { header, toolName: long, error: long } },
    {
      case: "metrics",
      value: {
        header,
        scopeId: long,
        metrics: { [long]: { value: { case: "stringValue", value: long }, unit: long } },
      },
    },
  ];
  for (const body of bodies) {
    const { tenant, thread, node, detail, name } = summary(body);
    expect([tenant, thread, node, detail, name].join("").length).toBeLessThan(800);
  }
});

test("a batch counts its events per run, also of several runs", () => {
  const inner = (threadId: string, eventType: EventType) => ({ header: { tenantId: "acme", threadId }, eventType });
  const batch = summary({
    case: "eventBatch",
    value: {
      header,
      events: [inner("a", EventType.GRAPH_START), inner("b", EventType.NODE_ERROR), inner("b", EventType.GRAPH_ERROR)],
    },
  });
  expect(batch.level).toBe("error");
  expect(batch.touches).toMatchObject([
    { thread: "a", signal: "started", events: 1, errors: 0 },
    { thread: "b", signal: "failed", events: 2, errors: 2 },
  ]);
});

test("a duration is the producer's own, whatever the times around it", () => {
  for (const timestampUs of [0n, 5n, 2n ** 62n]) {
    const timed = { ...header, timestampUs };
    const shown = [
      summary({ case: "event", value: { header: timed, eventType: EventType.NODE_END, durationUs: 142_000n } }),
      summary({ case: "toolExecution", value: { header: timed, toolName: "t", durationUs: 142_000n } }),
    ];
    expect(shown.every(({ detail }) => detail.includes("142 ms"))).toBe(true);
  }
});

test("a failed tool call reads as an error, an event number of a later version by its number", () => {
  expect(summary({ case: "toolExecution", value: { header, stage: ToolExecution_ExecutionStage.FAILED } }).level).toBe(
    "error",
  );
  expect(summary({ case: "event", value: { header, eventType: 99 as EventType } }).name).toBe("type 99");
});

describe("attribute values", () => {
  test("of every kind are readable", () => {
    const { s, i, f, b } = attributes({ s: "text", i: 9007199254740993n, f: 0.5, b: false });
    expect([s, i, f, b].map((value) => value && attributeText(value, 0))).toEqual([
      "text",
      "9007199254740993",
      "0.5",
      "false",
    ]);
    const list = create(AttributeValueSchema, {
      value: { case: "arrayValue", value: { values: [{ value: { case: "intValue", value: 1n } }, {}] } },
    });
    expect(attributeText(list, 0)).toBe("[1, none]");
    expect(
      attributeText(create(AttributeValueSchema, { value: { case: "bytesValue", value: new Uint8Array(3) } }), 0),
    ).toBe("3 bytes");
  });
});

test.each([
  [0n, "0 µs"],
  [999n, "999 µs"],
  [1500n, "1.5 ms"],
  [142_000n, "142 ms"],
  [5_330_000n, "5.33 s"],
  [600_000_000n, "10 min"],
])("%s µs reads as %s", (us, text) => expect(formatDuration(us)).toBe(text));

test("runs whose ids begin alike are told apart", () => {
  const of = (threadId: string) => summary({ case: "event", value: { header: { ...header, threadId } } }).touches;
  const [a, b] = [of(`${"x".repeat(200)}a`), of(`${"x".repeat(200)}b`)];
  expect(a[0]?.thread).toBe(b[0]?.thread);
  expect(a[0]?.key).not.toBe(b[0]?.key);
  const batch = summary({
    case: "eventBatch",
    value: { events: ["a", "b", "a"].map((end) => ({ header: { ...header, threadId: "x".repeat(200) + end } })) },
  });
  expect(batch.touches.map(({ key, events }) => [key, events])).toEqual([
    [a[0]?.key, 2],
    [b[0]?.key, 1],
  ]);
});
