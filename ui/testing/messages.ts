// Record values for tests and for the stand-in: framed messages, as producers write them.

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeValue,
  AttributeValueSchema,
  DashStreamMessageSchema,
  type DashStreamMessageSchema as Schema,
} from "../src/wire/generated/dashstream_pb";

export type Body = NonNullable<MessageInitShape<typeof Schema>["message"]>;

/** A record value: the framing byte for plain protobuf, then the message. */
export function framed(body: Body): Uint8Array {
  const bytes = toBinary(DashStreamMessageSchema, create(DashStreamMessageSchema, { message: body }));
  const value = new Uint8Array(bytes.length + 1);
  value.set(bytes, 1);
  return value;
}

/** Attribute values from plain ones; numbers become floats unless they are bigint. */
export function attributes(plain: Record<string, string | bigint | number | boolean>): Record<string, AttributeValue> {
  const out: Record<string, AttributeValue> = {};
  for (const [key, value] of Object.entries(plain)) {
    out[key] = create(AttributeValueSchema, { value: attributeCase(value) });
  }
  return out;
}

function attributeCase(value: string | bigint | number | boolean): AttributeValue["value"] {
  switch (typeof value) {
    case "string":
      return { case: "stringValue", value };
    case "bigint":
      return { case: "intValue", value };
    case "number":
      return { case: "floatValue", value };
    case "boolean":
      return { case: "boolValue", value };
  }
}

/** A plain event with everything that most tests need. */
export function eventValue(thread: string, sequence: bigint, eventType = 10, node = "plan"): Uint8Array {
  return framed({
    case: "event",
    value: {
      header: { tenantId: "acme", threadId: thread, sequence, timestampUs: 1_763_700_000_000_000n + sequence * 1000n },
      eventType,
      nodeId: node,
    },
  });
}
