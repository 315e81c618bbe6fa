// Takes a picture of the page: node scripts/screenshot.mjs URL OUT.png [seconds] [light|dark] [details]

import { chromium } from "playwright-core";

const [url = "http://127.0.0.1:3002", out = "page.png", seconds = "10", scheme = "light", details = ""] =
  process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const page = await browser.newPage({
    viewport: { width: 1280, height: 800 },
    colorScheme: scheme === "dark" ? "dark" : "light",
  });
  page.on("console", (message) => console.log(`[${message.type()}] ${message.text()}`));
  page.on("pageerror", (error) => console.log(`[page error] ${error.message}`));
  await page.goto(url);
  await page.waitForSelector('[data-row="record"]', { timeout: 30_000 });
  await page.waitForTimeout(Number(seconds) * 1000);
  if (details !== "") {
    await page.click(`[data-row="record"]:has-text("${details}")`);
    await page.waitForTimeout(300);
  }
  await page.screenshot({ path: out });
} finally {
  await browser.close();
}
