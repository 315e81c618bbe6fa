// Every kind of value through every reader: what was wrapped as text stays text, what was a number keeps its digits.

import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { framed } from "../../testing/messages";
import { attributeText, summarizeMetrics } from "./attributes";
import { decodeRecord } from "./decode";
import {
  type AttributeValue,
  AttributeValueSchema,
  type MetricValue,
  MetricValueSchema,
} from "./generated/dashstream_pb";
import { prettyMessage } from "./pretty";
import { summarize } from "./summary";

type Scalar = Extract<AttributeValue["value"], { case: string | undefined }> & MetricValue["value"];

/** The value, how lists show it, and how it reads in an opened message. */
const SCALARS: [string, Scalar, string, string][] = [
  ["text", { case: "stringValue", value: "plan" }, "plan", '"plan"'],
  ["empty text", { case: "stringValue", value: "" }, "", '""'],
  ["text that begins like a number", { case: "stringValue", value: "12ab" }, "12ab", '"12ab"'],
  ["text that looks like a number", { case: "stringValue", value: "007" }, "007", '"007"'],
  ["text that looks like a truth value", { case: "stringValue", value: "false" }, "false", '"false"'],
  ["zero", { case: "intValue", value: 0n }, "0", "0"],
  ["the least integer", { case: "intValue", value: -(2n ** 63n) }, "-9223372036854775808", "-9223372036854775808"],
  ["the largest integer", { case: "intValue", value: 2n ** 63n - 1n }, "9223372036854775807", "9223372036854775807"],
  ["a fraction", { case: "floatValue", value: 0.25 }, "0.25", "0.25"],
  ["a whole float", { case: "floatValue", value: 12 }, "12", "12.0"],
  ["a negative float", { case: "floatValue", value: -3 }, "-3", "-3.0"],
  ["a huge float", { case: "floatValue", value: 1e21 }, "1e+21", "1e+21"],
  ["no number", { case: "floatValue", value: Number.NaN }, "NaN", "NaN"],
  ["infinity", { case: "floatValue", value: Number.POSITIVE_INFINITY }, "Infinity", "Infinity"],
  ["true", { case: "boolValue", value: true }, "true", "true"],
  ["false", { case: "boolValue", value: false }, "false", "false"],
  ["bytes", { case: "bytesValue", value: new Uint8Array([1, 255]) }, "2 bytes", '"01ff"'],
  ["nothing", { case: undefined }, "none", "null"],
];

const attribute = (value: AttributeValue["value"]) => create(AttributeValueSchema, { value });

/** The list's detail, and the opened message, after the way through bytes. */
function read(attributes: Record<string, AttributeValue>): { detail: string; graph: string; opened: string } {
  const decoded = decodeRecord(framed({ case: "event", value: { header: { threadId: "t" }, attributes } }));
  if (!decoded.ok) {
    throw new Error(decoded.message);
  }
  const { detail, touches } = summarize(decoded.message);
  return { detail, graph: touches[0]?.graph ?? "", opened: prettyMessage(decoded.message).replace(/\s+/g, " ") };
}

describe.each(SCALARS)("%s", (_, value, listed, opened) => {
  test("as an attribute", () => {
    const said = read({ k: attribute(value) });
    expect(said.detail).toBe(`k=${listed}`);
    expect(said.opened).toContain(`"k": ${opened} }`);
  });

  test("in an array and in a map", () => {
    const array = attribute({
      case: "arrayValue",
      value: { $typeName: "dashstream.v1.AttributeArray", values: [attribute(value)] },
    });
    const map = attribute({
      case: "mapValue",
      value: { $typeName: "dashstream.v1.AttributeMap", values: { k: attribute(value) } },
    });
    expect([attributeText(array, 0), attributeText(map, 0)]).toEqual([`[${listed}]`, `{k=${listed}}`]);
    expect(read({ array }).opened).toContain(`[ ${opened} ]`);
    expect(read({ map }).opened).toContain(`{ "k": ${opened} }`);
  });

  test("as a metric", () => {
    // Only quantities and texts have one.
    const unit = ["intValue", "floatValue", "stringValue"].includes(value.case ?? "") ? " ms" : "";
    const metric = create(MetricValueSchema, { value, unit: "ms" });
    expect(summarizeMetrics({ k: metric }, 200)).toBe(`k=${listed}${unit}`);
  });

  test("as the name of a graph, which only text is", () => {
    expect(read({ graph_name: attribute(value) }).graph).toBe(value.case === "stringValue" ? value.value : "");
  });
});
