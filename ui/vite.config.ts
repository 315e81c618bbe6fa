import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const SERVICE = process.env.DASHSTREAM_URL ?? "http://127.0.0.1:3002";

export default defineConfig({
  plugins: [react()],
  worker: { format: "es" },
  build: { outDir: "dist", assetsDir: "assets", target: "es2022", sourcemap: false },
  server: {
    proxy: {
      "/ws": { target: SERVICE, ws: true },
      "/health": SERVICE,
      "/version": SERVICE,
    },
  },
  test: {
    include: ["src/**/*.test.ts", "testing/**/*.test.ts"],
    environment: "node",
  },
});
