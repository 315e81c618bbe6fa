// The page against the real service.
//
// `DASHSTREAM_URL` names a running one; otherwise the binary is started (`DASHSTREAM_BIN`, or what cargo built here).
// The test with a restart needs a Kafka that outlives the service: `DASHSTREAM_TEST_KAFKA`, as `scripts/services` sets it.

import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  type Browser,
  type BrowserContext,
  figures,
  launch,
  newPage,
  type Page,
  picture,
  positions,
  serviceSignal,
  streamSignal,
  until,
} from "./browser";

const TARGET = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../target", import.meta.url));
const BINARY = process.env.DASHSTREAM_BIN ?? `${TARGET}/debug/dashstream`;
const URL_GIVEN = process.env.DASHSTREAM_URL;
const KAFKA = process.env.DASHSTREAM_TEST_KAFKA;
const REDIS = process.env.DASHSTREAM_TEST_REDIS;
const hasBinary = existsSync(BINARY);

let browser: Browser;
let page: Page;
let context: BrowserContext;
let faults: string[];
const children = new Set<ChildProcess>();

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());
beforeEach(async ({ onTestFailed }) => {
  log = [];
  onTestFailed(() => console.log(log.join("\n")));
  ({ page, faults, context } = await newPage(browser));
});
afterEach(async () => {
  await context.close();
  await Promise.all([...children].map((child) => stop(child, "SIGKILL")));
  expect(faults).toEqual([]);
});

/** Variables of the service would change what is tested; names that it does not know keep it from starting. */
const cleanEnv = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(DASHSTREAM|KAFKA|REDIS)_/.test(name)),
);
let log: string[] = [];

/** Starts a command of the service. The end of its log is shown when the test fails. */
function run(args: string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...cleanEnv, ...env } });
  children.add(child);
  child.once("exit", (code, signal) => {
    children.delete(child);
    keep(`${args[0]} ended: ${signal ?? code}`);
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => keep(...String(chunk).split("\n")));
  }
  return child;
}

function keep(...lines: string[]): void {
  log = [...log, ...lines.filter((line) => line !== "")].slice(-60);
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

function answers(url: string): Promise<boolean> {
  return fetch(`${url}/live`).then(
    (response) => response.ok,
    () => false,
  );
}

const count = async (label: string): Promise<bigint> => BigInt((await figures(page))[label] ?? "0");

async function openLive(url: string): Promise<void> {
  await page.goto(url);
  await openedLive();
}

async function openedLive(): Promise<void> {
  await until(
    "the page is live",
    () => streamSignal(page),
    (text) => text === "live",
    60_000,
  );
}

async function total(): Promise<bigint> {
  let sum = 0n;
  for (const position of (await positions(page)).values()) {
    sum += position;
  }
  return sum;
}

describe.skipIf(URL_GIVEN === undefined && !hasBinary)("demo", () => {
  test("starts, and events of believable runs appear", async () => {
    let url = URL_GIVEN ?? "";
    if (URL_GIVEN === undefined) {
      const port = await freePort();
      url = `http://127.0.0.1:${port}`;
      run(["demo", "--port", String(port), "--rate", "100"]);
      await until(
        "the service answers",
        () => answers(url),
        (isUp) => isUp,
        30_000,
      );
    }
    await openLive(url);
    await until(
      "a hundred records",
      () => count("Records"),
      (records) => records >= 100n,
      30_000,
    );
    await until(
      "the service's state",
      () => serviceSignal(page),
      (text) => text === "healthy",
      40_000,
    );
    await expect.poll(() => count("Lost offsets")).toBe(0n);
    await expect.poll(() => count("Unreadable")).toBe(0n);
    await expect.poll(() => page.locator(".run").count()).toBeGreaterThan(0);
    await expect.poll(() => page.locator(".alert").count()).toBe(0);
    await page.locator('[data-row="record"]').last().click();
    await expect.poll(() => page.locator(".details pre").innerText()).toContain('"thread_id"');
    await picture(page, "demo");
  });
});

/** A token that lets see everything for ten minutes. */
function token(secret: string): string {
  const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 600;
  const signed = `${encoded({ alg: "HS256" })}.${encoded({ exp, scope: "dashstream:all_tenants" })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

describe.skipIf(!hasBinary)("a service that asks for tokens", () => {
  test("gets one from the page, which keeps it over a reload", async () => {
    const secret = "correct-horse-battery-staple-of-32-bytes";
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    run(["demo", "--port", String(port)], { DASHSTREAM_AUTH_JWT_SECRET: secret });
    await until(
      "the service answers",
      () => answers(url),
      (isUp) => isUp,
      30_000,
    );
    await page.goto(url);
    const field = page.locator("#token");
    await expect.poll(() => field.count(), { timeout: 30_000 }).toBe(1);
    await field.fill(token("another secret of 32 bytes or more"));
    await field.press("Enter");
    // The page has taken it, and is not let in with it.
    await expect.poll(() => field.inputValue()).toBe("");
    await expect.poll(() => streamSignal(page), { timeout: 30_000 }).toContain("reconnecting");
    await field.fill(token(secret));
    await field.press("Enter");
    await openedLive();
    await expect.poll(() => field.count()).toBe(0);
    await page.reload();
    await openedLive();
  });
});

describe.skipIf(!hasBinary)("a demo that starts anew", () => {
  test("is another topic: the page says so and goes on", async () => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const args = ["demo", "--port", String(port), "--rate", "100"];
    const first = run(args);
    await until(
      "the service answers",
      () => answers(url),
      (isUp) => isUp,
      30_000,
    );
    await openLive(url);
    await until(
      "records",
      () => count("Records"),
      (records) => records >= 50n,
      30_000,
    );
    await stop(first, "SIGKILL");
    await until(
      "the page notices",
      () => streamSignal(page),
      (text) => text !== "live",
    );
    const before = await count("Records");
    run(args);
    await until(
      "live again",
      () => streamSignal(page),
      (text) => text === "live",
      40_000,
    );
    await until(
      "new records",
      () => count("Records"),
      (records) => records > before + 50n,
      30_000,
    );
    await expect.poll(() => page.locator(".alert-warning").innerText()).toContain("topic_recreated");
    await expect.poll(() => page.locator(".alert-error").count()).toBe(0);
    await picture(page, "demo-anew");
  });
});

/** A topic of its own, a service for it that is not started yet, and a producer. */
async function ownTopic(settings: Record<string, string> = {}): Promise<Own> {
  const port = await freePort();
  const topic = `page-${port}-${Date.now()}`;
  const env = {
    KAFKA_BROKERS: KAFKA ?? "",
    KAFKA_TOPIC: topic,
    KAFKA_GROUP_ID: topic,
    WEBSOCKET_PORT: String(port),
    ...settings,
  };
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    produce: (args) => run(["generate", "--partitions", "4", ...args], env),
    async serve() {
      const service = run(["serve"], env);
      await until(
        "the service answers",
        () => answers(url),
        (isUp) => isUp,
      );
      return service;
    },
  };
}

interface Own {
  url: string;
  produce(args: string[]): ChildProcess;
  serve(): Promise<ChildProcess>;
}

describe.skipIf(!hasBinary || KAFKA === undefined)("history", () => {
  test("from before the page and from before the service is loaded on request, in parts, and a reload keeps the place", async () => {
    // Nearly all of it has left the memory of the service, and it takes four questions.
    const limits = {
      REPLAY_BUFFER_MEMORY_SIZE: "100",
      REPLAY_MAX_TOTAL: "400",
      DASHSTREAM_REPLAY_PAGE_RECORDS: "150",
    };
    const { url, produce, serve } = await ownTopic(limits);
    await stopped(produce(["--count", "1000", "--unlimited"]));
    await serve();
    await openLive(url);
    await expect.poll(async () => [await count("Records"), await total()]).toEqual([0n, 1000n]);
    await stopped(produce(["--count", "500", "--unlimited", "--seed", "2"]));
    const everything = (records: bigint) =>
      until(
        `${records} records`,
        () => count("Records"),
        (seen) => seen >= records,
        60_000,
      );
    const clean = async () => {
      await expect.poll(() => count("Lost offsets")).toBe(0n);
      await expect.poll(() => count("Unreadable")).toBe(0n);
      await expect.poll(() => page.locator(".row-gap, .row-hole, .row-reset, .alert").count()).toBe(0);
    };
    await everything(500n);
    await expect.poll(() => count("Records")).toBe(500n);

    await page.getByRole("button", { name: "From the beginning" }).click();
    await everything(1500n);
    await openedLive();
    // The log begins at 0 everywhere: as many records as offsets, so none is missing and none came twice.
    await expect.poll(async () => [await count("Records"), await total()]).toEqual([1500n, 1500n]);
    await expect.poll(() => page.locator(".row-live").innerText()).toContain("after 1,500 records of history");
    await clean();
    await picture(page, "service-history");

    const before = await positions(page);
    await page.reload();
    await openedLive();
    await expect.poll(async () => [await count("Records"), await positions(page)]).toEqual([0n, before]);
    await stopped(produce(["--count", "50", "--unlimited", "--seed", "3"]));
    await everything(50n);
    await expect.poll(async () => [await count("Records"), await total()]).toEqual([50n, 1550n]);
    await clean();
  });
});

describe.skipIf(!hasBinary || KAFKA === undefined)("a service that restarts", () => {
  test.each([
    ["in order", "SIGTERM"],
    ["by kill -9", "SIGKILL"],
  ] as const)("%s is caught up with, without a hole or a duplicate", async (_, signal) => {
    const { url, produce, serve } = await ownTopic();
    await stopped(produce(["--count", "50", "--unlimited"]));
    const service = await serve();
    await openLive(url);
    const [recordsAtStart, positionAtStart] = [await count("Records"), await total()];
    const producer = produce(["--rate", "300", "--seed", "2"]);
    await until(
      "records",
      () => count("Records"),
      (records) => records > recordsAtStart + 300n,
      30_000,
    );
    await stop(service, signal);
    await until(
      "the page notices",
      () => streamSignal(page),
      (text) => text !== "live",
    );
    // Produced while nobody serves.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await serve();
    await openedLive();
    const after = await count("Records");
    await until(
      "new records",
      () => count("Records"),
      (records) => records > after + 300n,
      30_000,
    );
    await stop(producer, "SIGTERM");
    await until("the page has everything", async () => [await total(), await count("Records")], steady(), 30_000);

    // Every offset that the positions passed was shown: as a record, for nothing was lost and no row says otherwise.
    const unseen = async () => (await total()) - positionAtStart - ((await count("Records")) - recordsAtStart);
    await expect.poll(unseen).toBe(0n);
    await expect.poll(() => count("Lost offsets")).toBe(0n);
    await expect.poll(() => page.locator(".alert-error").count()).toBe(0);
    await picture(page, `restart-${signal}`);
  });
});

/** What operators see of a slow page, and must not see of anything else. */
interface Scrape {
  applyLag: number;
  consumerLag: number;
  redisWrites: number;
  redisMs: number;
  faults: number;
}

async function scrape(url: string): Promise<Scrape> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const sum = (family: string, label = "") =>
    text
      .split("\n")
      .filter((line) => line.startsWith(family) && /^[ {]/.test(line.slice(family.length)) && line.includes(label))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" "))), 0);
  const redis = "dashstream_websocket_redis_latency_ms";
  return {
    applyLag: sum("websocket_client_apply_lag_messages"),
    consumerLag: sum("websocket_kafka_consumer_lag"),
    redisWrites: sum(`${redis}_count`, 'operation="write"'),
    redisMs: sum(`${redis}_sum`, 'operation="write"'),
    faults: sum("websocket_infrastructure_errors_total") + sum("dashstream_websocket_redis_errors_total"),
  };
}

describe.skipIf(!hasBinary || KAFKA === undefined || REDIS === undefined)("a browser with little time", () => {
  test("shows as apply lag, and not as trouble of Kafka or Redis", async () => {
    const { url, produce, serve } = await ownTopic({
      REDIS_URL: REDIS ?? "",
      KAFKA_LAG_CHECK_INTERVAL_SECS: "1",
      // However little time the browser has: it is slow, not gone.
      WEBSOCKET_SEND_TIMEOUT_SECS: "300",
    });
    await stopped(produce(["--count", "50", "--unlimited"]));
    await serve();
    await openLive(url);
    // Well below what a browser on a small machine keeps up with.
    const perSecond = 300;
    produce(["--rate", String(perSecond), "--seed", "2"]);
    await until(
      "records",
      () => count("Records"),
      (records) => records > 1_000n,
      30_000,
    );
    /** Looks again and again until it holds: the highest lags, and the time that Redis took for a batch. */
    const watch = async (what: string, holds: (seen: Scrape[]) => boolean, each = () => {}) => {
      const seen: Scrape[] = [];
      const look = async () => {
        seen.push(await scrape(url));
        each();
        return `apply lag ${seen.at(-1)?.applyLag}, Redis ${seen.at(-1)?.redisWrites}`;
      };
      await until(what, look, () => holds(seen), 60_000);
      const [first, last] = [seen[0] as Scrape, seen.at(-1) as Scrape];
      return {
        applyLag: Math.max(...seen.map((at) => at.applyLag)),
        consumerLag: Math.max(...seen.map((at) => at.consumerLag)),
        redisMs: (last.redisMs - first.redisMs) / Math.max(1, last.redisWrites - first.redisWrites),
        faults: last.faults,
      };
    };
    const wrote = (seen: Scrape[], batches: number) =>
      (seen.at(-1)?.redisWrites ?? 0) - (seen[0]?.redisWrites ?? 0) >= batches;
    const before = await watch("a stretch at rest", (seen) => wrote(seen, 50));

    const devtools = await context.newCDPSession(page);
    // Less and less until it shows: how little is too little depends on the machine.
    let [rate, looks] = [5, 0];
    const squeeze = () => {
      looks += 1;
      if (looks % 50 === 1) {
        rate *= 2;
        // Answered when the page comes to it.
        devtools.send("Emulation.setCPUThrottlingRate", { rate }).catch(() => {});
      }
    };
    const highest = (seen: Scrape[]) => Math.max(...seen.map((at) => at.applyLag));
    const slow = await watch(
      "apply lag",
      (seen) => wrote(seen, 50) && highest(seen) > 3 * before.applyLag + 3 * perSecond,
      squeeze,
    );
    await devtools.send("Emulation.setCPUThrottlingRate", { rate: 1 });
    await watch("the lag to be gone", (seen) => (seen.at(-1)?.applyLag ?? 0) <= 2 * before.applyLag + perSecond);

    // A poll of Kafka sees what came since the last one, busy browser or not.
    expect(slow.consumerLag).toBeLessThanOrEqual(2 * before.consumerLag + perSecond);
    expect(slow.redisMs).toBeLessThanOrEqual(3 * before.redisMs + 20);
    expect(slow.faults).toBe(before.faults);
    await expect.poll(() => count("Lost offsets")).toBe(0n);
    console.log("before and while it had little time:", before, slow);
  }, 180_000);
});

function stopped(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve) => child.once("exit", resolve));
}

/** Holds once the same figures were seen for a second. */
function steady(): (seen: bigint[]) => boolean {
  let last = "";
  let sinceMs = 0;
  return (seen) => {
    const text = seen.join();
    if (text !== last) {
      last = text;
      sinceMs = Date.now();
    }
    return Date.now() - sinceMs > 1000;
  };
}
