import { defineConfig } from "vitest/config";

// Real Chromium against a running service or a stand-in; see e2e/.
export default defineConfig({
  test: {
    include: ["e2e/**/*.test.ts"],
    environment: "node",
    testTimeout: 120_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    // What passes only the second time is named by scripts/test; see there.
    retry: 1,
    // A page draws when it comes to it: what it shows is asked for until it does.
    expect: { poll: { timeout: 20_000 } },
    reporters: ["verbose"],
  },
});
