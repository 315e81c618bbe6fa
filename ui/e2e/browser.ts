// Real Chromium, and how the page reads to somebody who looks at it.

import { mkdirSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

export type { Browser, BrowserContext, Page };

/** Debian's Chromium, or the one that `CHROMIUM` names. */
export function launch(): Promise<Browser> {
  return chromium.launch({
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
}

/** A page in a profile of its own. Errors of the page are collected. */
export async function newPage(browser: Browser): Promise<{ page: Page; faults: string[]; context: BrowserContext }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    // A refused connection is what a restart looks like to a browser; everything else is a defect.
    if (
      message.type() === "error" &&
      !/WebSocket connection to|ERR_CONNECTION|Failed to load resource/.test(message.text())
    ) {
      faults.push(message.text());
    }
  });
  return { page, faults, context };
}

/** The figures of the top bar by their labels, without separators. */
export async function figures(page: Page): Promise<Record<string, string>> {
  const pairs = await page.$$eval(".figure", (elements) =>
    elements.map((element) => [
      element.querySelector("dt")?.textContent ?? "",
      element.querySelector("dd")?.textContent ?? "",
    ]),
  );
  return Object.fromEntries(pairs.map(([label, value]) => [label, (value ?? "").replaceAll(",", "")])) as Record<
    string,
    string
  >;
}

/** Position per partition, as the table shows it. */
export async function positions(page: Page): Promise<Map<number, bigint>> {
  const rows = await page.$$eval(".partitions tbody tr", (elements) =>
    elements.map((element) => [
      element.querySelector("th")?.textContent ?? "",
      element.querySelector("td")?.textContent ?? "",
    ]),
  );
  return new Map(
    rows.map(([partition, position]) => [Number(partition), BigInt((position ?? "0").replaceAll(",", ""))]),
  );
}

export function streamSignal(page: Page): Promise<string> {
  return page.locator('[data-testid="signal-stream"]').innerText();
}

export function serviceSignal(page: Page): Promise<string> {
  return page.locator('[data-testid="signal-service"]').innerText();
}

/** Waits until the condition holds; the message says what was seen last. */
export async function until<T>(
  what: string,
  look: () => Promise<T> | T,
  holds: (seen: T) => boolean,
  limitMs = 40_000,
): Promise<T> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const seen = await look();
    if (holds(seen)) {
      return seen;
    }
    if (Date.now() > deadline) {
      throw new Error(`not within ${limitMs} ms: ${what}; last seen: ${String(seen)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Keeps a picture when `SCREENSHOTS` names a folder. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env.SCREENSHOTS;
  if (folder !== undefined) {
    mkdirSync(folder, { recursive: true });
    await page.screenshot({ path: `${folder}/${name}.png` });
  }
}
