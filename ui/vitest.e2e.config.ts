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
    reporters: ["verbose"],
  },
});
