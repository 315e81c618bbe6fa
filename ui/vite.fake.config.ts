import { mergeConfig } from "vite";
import { startDemo } from "./testing/demo";
import base from "./vite.config";

// `npm run dev:fake`: a small stand-in for the service, so that the page can be worked on alone.
export default mergeConfig(base, {
  plugins: [
    {
      name: "dashstream-fake-service",
      async configureServer(server: { httpServer: { on(event: "close", action: () => void): void } | null }) {
        const demo = await startDemo(Number(process.env.FAKE_PORT ?? 3002));
        server.httpServer?.on("close", () => void demo.stop());
      },
    },
  ],
});
