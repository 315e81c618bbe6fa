import { expect, test } from "vitest";
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
