// What `/version` says that a page needs.

export interface ServiceVersion {
  /** Under which name positions are kept; null while the service does not know its stream's name yet. */
  namespace: string | null;
}

/** Reads the answer; what is missing or of another kind counts as not said. */
export function parseVersion(body: unknown): ServiceVersion {
  const fields: Record<string, unknown> = typeof body === "object" && body !== null ? { ...body } : {};
  const { epoch, resume_namespace: name } = fields;
  // A name that is made of no epoch is no stream's: what is stored under the last one is still good.
  const isNamed = typeof epoch === "string" && epoch !== "" && typeof name === "string" && name !== "";
  return { namespace: isNamed ? name : null };
}
