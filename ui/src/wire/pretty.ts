// A decoded message as indented text for a person: enums by name, 64-bit numbers exact, bytes readable, all bounded.

import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { type DashStreamMessage, DashStreamMessageSchema } from "./generated/dashstream_pb";
import { cut } from "./numbers";

const MAX_OUTPUT_CHARS = 200_000;
const MAX_STRING_CHARS = 20_000;
const MAX_JSON_BYTES = 256 * 1024;
const MAX_DEPTH = 40;
const MAX_HEX_BYTES = 64;

/** Indented text of the whole message, at most about 200,000 characters. */
export function prettyMessage(message: DashStreamMessage): string {
  const out = new Output();
  writeMessage(out, DashStreamMessageSchema, message as unknown as Fields, 0);
  return out.text();
}

type Fields = Record<string, unknown>;

class Output {
  #parts: string[] = [];
  #chars = 0;
  isFull = false;

  write(text: string): void {
    if (this.isFull) {
      return;
    }
    if (this.#chars + text.length > MAX_OUTPUT_CHARS) {
      this.isFull = true;
      this.#parts.push("\n… cut: the message is longer than what is shown");
      return;
    }
    this.#chars += text.length;
    this.#parts.push(text);
  }

  line(depth: number): void {
    this.write(`\n${"  ".repeat(depth)}`);
  }

  text(): string {
    return this.#parts.join("");
  }
}

function writeMessage(out: Output, desc: DescMessage, value: Fields, depth: number): void {
  if (depth > MAX_DEPTH) {
    out.write('"… nested too deeply"');
    return;
  }
  if (VALUE_WRAPPERS.has(desc.typeName)) {
    writeWrapped(out, desc, value, depth);
    return;
  }
  out.write("{");
  let count = 0;
  for (const field of desc.fields) {
    const content = contentOf(field, value);
    if (content === undefined || isEmpty(field, content)) {
      continue;
    }
    out.write(count === 0 ? "" : ",");
    out.line(depth + 1);
    out.write(`"${field.name}": `);
    writeField(out, field, content, depth + 1);
    count += 1;
    if (out.isFull) {
      return;
    }
  }
  if (count > 0) {
    out.line(depth);
  }
  out.write("}");
}

/** Attribute values are shown as the values that they wrap. */
const VALUE_WRAPPERS = new Set([
  "dashstream.v1.AttributeValue",
  "dashstream.v1.AttributeArray",
  "dashstream.v1.AttributeMap",
]);

function writeWrapped(out: Output, desc: DescMessage, value: Fields, depth: number): void {
  for (const field of desc.fields) {
    const content = contentOf(field, value);
    if (content !== undefined) {
      writeField(out, field, content, depth);
      return;
    }
  }
  out.write("null");
}

function contentOf(field: DescField, value: Fields): unknown {
  if (field.oneof === undefined) {
    return value[field.localName];
  }
  const group = value[field.oneof.localName] as { case?: string; value?: unknown } | undefined;
  return group?.case === field.localName ? group.value : undefined;
}

/** proto3 does not tell an unset field from an empty one; neither says anything. */
function isEmpty(field: DescField, content: unknown): boolean {
  if (field.fieldKind === "map") {
    return Object.keys(content as Fields).length === 0;
  }
  if (content instanceof Uint8Array || Array.isArray(content)) {
    return content.length === 0;
  }
  return content === "" || content === null;
}

function writeField(out: Output, field: DescField, content: unknown, depth: number): void {
  switch (field.fieldKind) {
    case "message":
      writeMessage(out, field.message, content as Fields, depth);
      return;
    case "enum":
      writeEnum(out, field, content);
      return;
    case "scalar":
      writeScalar(out, field.scalar, content, depth);
      return;
    case "list":
      writeList(out, field, content as unknown[], depth);
      return;
    case "map":
      writeMap(out, field, content as Fields, depth);
      return;
  }
}

function writeEnum(out: Output, field: DescField, content: unknown): void {
  const name = field.enum?.values.find((value) => value.number === content)?.name;
  out.write(name === undefined ? String(content) : `"${name}"`);
}

function writeElement(
  out: Output,
  field: DescField & { fieldKind: "list" | "map" },
  content: unknown,
  depth: number,
): void {
  const kind = field.fieldKind === "list" ? field.listKind : field.mapKind;
  if (kind === "message" && field.message !== undefined) {
    writeMessage(out, field.message, content as Fields, depth);
  } else if (kind === "enum") {
    writeEnum(out, field, content);
  } else {
    writeScalar(out, field.scalar ?? ScalarType.STRING, content, depth);
  }
}

function writeList(out: Output, field: DescField & { fieldKind: "list" }, content: unknown[], depth: number): void {
  const isFlat = field.listKind === "scalar" && field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BYTES;
  out.write("[");
  for (const [index, element] of content.entries()) {
    out.write(index === 0 ? "" : isFlat ? ", " : ",");
    if (!isFlat) {
      out.line(depth + 1);
    }
    writeElement(out, field, element, depth + 1);
    if (out.isFull) {
      return;
    }
  }
  if (!isFlat) {
    out.line(depth);
  }
  out.write("]");
}

function writeMap(out: Output, field: DescField & { fieldKind: "map" }, content: Fields, depth: number): void {
  out.write("{");
  let count = 0;
  for (const [key, element] of Object.entries(content)) {
    out.write(count === 0 ? "" : ",");
    out.line(depth + 1);
    out.write(`${JSON.stringify(cut(key, 200))}: `);
    writeElement(out, field, element, depth + 1);
    count += 1;
    if (out.isFull) {
      return;
    }
  }
  if (count > 0) {
    out.line(depth);
  }
  out.write("}");
}

function writeScalar(out: Output, type: ScalarType, content: unknown, depth: number): void {
  if (content instanceof Uint8Array) {
    out.write(bytesText(content, depth));
  } else if (typeof content === "bigint") {
    out.write(content.toString());
  } else if (type === ScalarType.STRING && typeof content === "string") {
    out.write(JSON.stringify(cut(content, MAX_STRING_CHARS)));
  } else {
    const text = String(content);
    // Tells a float from an integer; `1e+21` does so itself.
    out.write(type === ScalarType.DOUBLE && /^-?\d+$/.test(text) ? `${text}.0` : text);
  }
}

function bytesText(bytes: Uint8Array, depth: number): string {
  const json = bytes.length <= MAX_JSON_BYTES ? jsonText(bytes) : null;
  if (json !== null) {
    return reindent(json, depth);
  }
  let hex = "";
  for (const byte of bytes.subarray(0, MAX_HEX_BYTES)) {
    hex += byte.toString(16).padStart(2, "0");
  }
  return bytes.length > MAX_HEX_BYTES ? `"${hex}… (${bytes.length} bytes)"` : `"${hex}"`;
}

/** The text of a JSON object, array or string; null for anything else, a number that is really an id included. */
function jsonText(bytes: Uint8Array): string | null {
  const first = bytes[0];
  if (first !== 0x7b && first !== 0x5b && first !== 0x22) {
    return null;
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    JSON.parse(text);
    return text;
  } catch {
    return null;
  }
}

/** Indents JSON text without reading its numbers, so that every digit stays. The text must be valid JSON. */
export function reindent(json: string, depth: number): string {
  const tokens = json.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let level = depth;
  let before = "";
  let out = "";
  for (const token of tokens) {
    if (isClosing(token)) {
      level -= 1;
    }
    out += needsNewLine(before, token) ? `\n${"  ".repeat(level)}${token}` : token === ":" ? ": " : token;
    if (isOpening(token)) {
      level += 1;
    }
    before = token;
  }
  return out;
}

function isOpening(token: string): boolean {
  return token === "{" || token === "[";
}

function isClosing(token: string): boolean {
  return token === "}" || token === "]";
}

function needsNewLine(before: string, token: string): boolean {
  if (isClosing(token)) {
    return !isOpening(before);
  }
  return isOpening(before) || before === ",";
}
