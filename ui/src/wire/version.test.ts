import { expect, test } from "vitest";
import { DEFAULT_FRAMING } from "./limits";
import { parseVersion } from "./version";

test("a stream is named only when its epoch is known", () => {
  expect(parseVersion({ epoch: "c/t/1", resume_namespace: "v2_abc" }).namespace).toBe("v2_abc");
  for (const body of [
    { epoch: "", resume_namespace: "v2_abc" },
    { epoch: "", resume_namespace: null },
    { epoch: "c/t/1", resume_namespace: null },
    { epoch: "c/t/1", resume_namespace: "" },
    { epoch: 7, resume_namespace: "v2_abc" },
    { resume_namespace: "v2_abc" },
    {},
    [],
    null,
    "v2_abc",
  ]) {
    expect(parseVersion(body).namespace).toBeNull();
  }
});

test("what the service accepts and asks for is taken over where it is said", () => {
  const said = parseVersion({ max_payload_bytes: 1024, legacy_framing: true, asks_for_token: true });
  expect(said).toMatchObject({ framing: { maxPayloadBytes: 1024, legacy: true }, asksForToken: true });
  for (const limit of [undefined, null, "1024", 0, -1, 1.5, Number.NaN, 2 ** 60]) {
    const other = parseVersion({ max_payload_bytes: limit, legacy_framing: "yes", asks_for_token: 1 });
    expect(other).toEqual({ namespace: null, framing: DEFAULT_FRAMING, asksForToken: false });
  }
});
