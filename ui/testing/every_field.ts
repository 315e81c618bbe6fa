// Messages that carry one value in one field: each field of a type that the protocol has, found by its description.

import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { DashStreamMessageSchema } from "../src/wire/generated/dashstream_pb";
import type { Body } from "./messages";

type Init = Record<string, unknown>;

/** The path of each field of the type, map keys included, and a message that holds `value` there and nowhere else. */
export function everyField(type: ScalarType.STRING | ScalarType.BYTES, value: string | Uint8Array): [string, Body][] {
  const found: [string, Body][] = [];
  for (const [path, init] of holders(DashStreamMessageSchema, type, value, [])) {
    found.push([path, init.message as Body]);
  }
  return found;
}

function* holders(desc: DescMessage, type: ScalarType, value: unknown, above: string[]): Generator<[string, Init]> {
  if (above.includes(desc.typeName)) {
    return;
  }
  const seen = [...above, desc.typeName];
  for (const field of desc.fields) {
    if (field.scalar === type) {
      yield [field.name, put(field, wrapped(field, value))];
    }
    if (field.fieldKind === "map" && field.mapKey === type) {
      yield [`${field.name} (key)`, put(field, { [String(value)]: emptyElement(field) })];
    }
    if (field.message !== undefined) {
      for (const [path, inner] of holders(field.message, type, value, seen)) {
        yield [`${field.name}.${path}`, put(field, wrapped(field, inner))];
      }
    }
  }
}

function wrapped(field: DescField, element: unknown): unknown {
  switch (field.fieldKind) {
    case "list":
      return [element];
    case "map":
      return { key: element };
    default:
      return element;
  }
}

function emptyElement(field: DescField & { fieldKind: "map" }): unknown {
  if (field.mapKind === "message") {
    return {};
  }
  return field.scalar === ScalarType.BYTES ? new Uint8Array() : "";
}

function put(field: DescField, content: unknown): Init {
  return field.oneof === undefined
    ? { [field.localName]: content }
    : { [field.oneof.localName]: { case: field.localName, value: content } };
}
