// What `/version` says that a page needs.

import { DEFAULT_FRAMING, type Framing } from "./limits";

export interface ServiceVersion {
  /** Under which name positions are kept; null while the service does not know its stream's name yet. */
  namespace: string | null;
  framing: Framing;
  /** Whether clients have to show a token. */
  asksForToken: boolean;
}

/** Reads the answer; what is missing or of another kind counts as not said. */
export function parseVersion(body: unknown): ServiceVersion {
  const fields: Record<string, unknown> = typeof body === "object" && body !== null ? { ...body } : {};
  const { epoch, resume_namespace: name, max_payload_bytes: limit } = fields;
  // A name that is made of no epoch is no stream's: what is stored under the last one is still good.
  const isNamed = typeof epoch === "string" && epoch !== "" && typeof name === "string" && name !== "";
  const hasLimit = typeof limit === "number" && Number.isSafeInteger(limit) && limit > 0;
  return {
    namespace: isNamed ? name : null,
    framing: {
      maxPayloadBytes: hasLimit ? limit : DEFAULT_FRAMING.maxPayloadBytes,
      legacy: fields.legacy_framing === true,
    },
    asksForToken: fields.asks_for_token === true,
  };
}
