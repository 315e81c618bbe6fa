// Attribute and metric values as short texts. Every wrapper kind, bounded in length, depth and count.

import type { AttributeValue, MetricValue } from "./generated/dashstream_pb";
import { cut } from "./numbers";

const MAX_VALUE_CHARS = 80;
const MAX_DEPTH = 3;
const MAX_LISTED = 8;

/** `key=value` pairs in the order of the message, cut at `maxChars`. */
export function summarizeAttributes(attributes: Record<string, AttributeValue>, maxChars: number): string {
  return pairs(attributes, (value) => attributeText(value, 0), maxChars);
}

/** Metric values with their units, cut at `maxChars`. */
export function summarizeMetrics(metrics: Record<string, MetricValue>, maxChars: number): string {
  return pairs(metrics, metricText, maxChars);
}

function pairs<T>(values: Record<string, T>, text: (value: T) => string, maxChars: number): string {
  let out = "";
  for (const key in values) {
    const value = values[key];
    if (value === undefined) {
      continue;
    }
    out += `${out === "" ? "" : " "}${cut(key, 40)}=${text(value)}`;
    if (out.length > maxChars) {
      break;
    }
  }
  return cut(out, maxChars);
}

/** One attribute value as text. */
export function attributeText(attribute: AttributeValue, depth: number): string {
  const { value } = attribute;
  switch (value.case) {
    case "stringValue":
      return cut(value.value, MAX_VALUE_CHARS);
    case "intValue":
      return value.value.toString();
    case "floatValue":
    case "boolValue":
      return String(value.value);
    case "bytesValue":
      return `${value.value.length} bytes`;
    case "arrayValue": {
      if (depth >= MAX_DEPTH) {
        return "[…]";
      }
      const shown = value.value.values.slice(0, MAX_LISTED).map((inner) => attributeText(inner, depth + 1));
      return cut(`[${shown.join(", ")}${value.value.values.length > shown.length ? ", …" : ""}]`, MAX_VALUE_CHARS);
    }
    case "mapValue": {
      if (depth >= MAX_DEPTH) {
        return "{…}";
      }
      return `{${pairs(value.value.values, (inner) => attributeText(inner, depth + 1), MAX_VALUE_CHARS)}}`;
    }
    default:
      return "none";
  }
}

function metricText(metric: MetricValue): string {
  const { value } = metric;
  const unit = metric.unit === "" ? "" : ` ${cut(metric.unit, 16)}`;
  switch (value.case) {
    case "intValue":
      return value.value.toString() + unit;
    case "floatValue":
      return String(Number(value.value.toPrecision(6))) + unit;
    case "stringValue":
      return cut(value.value, MAX_VALUE_CHARS) + unit;
    case "boolValue":
      return String(value.value);
    case "bytesValue":
      return `${value.value.length} bytes`;
    default:
      return "none";
  }
}
