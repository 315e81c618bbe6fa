// The page against a stand-in that can be broken on purpose.

import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type FakeOptions, FakeServer, FindingKind, GapReason, SkipReason } from "../testing/fake_server";
import { eventValue, framed } from "../testing/messages";
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

const DIST = fileURLToPath(new URL("../dist", import.meta.url));

let browser: Browser;
let server: FakeServer;
let page: Page;
let context: BrowserContext;
let faults: string[];
let sequence = 0n;

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

beforeEach(async () => {
  server = new FakeServer({ partitions: 4, heartbeatMs: 300, page: DIST });
  await server.start();
  ({ page, faults, context } = await newPage(browser));
  sequence = 0n;
});
afterEach(async () => {
  await context.close();
  await server.stop();
  expect(faults).toEqual([]);
});

async function open(query = ""): Promise<void> {
  await page.goto(server.url + query);
  await until(
    "the page is live",
    () => streamSignal(page),
    (text) => text === "live",
  );
}

function produce(count: number, partition = 0, thread = "run-1"): void {
  server.together(() => {
    for (let i = 0; i < count; i += 1) {
      sequence += 1n;
      server.record(partition, eventValue(thread, sequence));
    }
  });
}

const recordCount = async (): Promise<string> => (await figures(page)).Records ?? "";
const waitForRecords = (count: number) => until(`${count} records`, recordCount, (seen) => seen === String(count));
const rowTexts = (type: string): Promise<string[]> =>
  page.$$eval(`[data-row="${type}"]`, (rows) =>
    rows.map((row) => (row as HTMLElement).innerText.replaceAll("\n", " ")),
  );

describe("live", () => {
  test("events appear with their run, kind, node, sequence, position and findings", async () => {
    await open();
    produce(3);
    server.record(2, eventValue("run-2", 9n), [{ kind: FindingKind.GAP, expected: 4n, found: 9n }]);
    await waitForRecords(4);
    const [first, , , last] = await rowTexts("record");
    expect(first).toMatch(/acme run-1 node start plan .*1 0:0/);
    expect(last).toMatch(/run-2 .*sequence gap.* 2:0/);
    expect(page.workers()).toHaveLength(1);
    await expect.poll(() => page.locator(".run").allInnerTexts()).toHaveLength(2);
    await expect.poll(() => figures(page)).toMatchObject({ Findings: "1", "Lost offsets": "0" });
    await picture(page, "live");
  });

  test("the page reports what it applied, and the table shows position, end and lag", async () => {
    await open();
    produce(5, 1);
    await until(
      "the report",
      () => server.applied,
      (reports) => reports.some((report) => report[1] === "4"),
    );
    await expect.poll(async () => (await positions(page)).get(1)).toBe(5n);
  });

  test("gaps and skips are rows with range and reason", async () => {
    await open();
    server.gap(0, 120, GapReason.RETENTION);
    server.skip(1, 3, SkipReason.INVALID_PROTOBUF);
    await until(
      "the gap",
      () => rowTexts("gap"),
      (rows) => rows.length === 1,
    );
    await expect
      .poll(() => rowTexts("gap"))
      .toEqual([expect.stringContaining("120 offsets lost, 0 to 119 (retention)")]);
    await expect.poll(() => rowTexts("skip")).toEqual([expect.stringContaining("(invalid protobuf)")]);
    await expect.poll(async () => (await figures(page))["Lost offsets"]).toBe("120");
    await picture(page, "gap");
  });

  test("a record that cannot be read is shown with its reason, and the stream goes on", async () => {
    await open();
    server.record(0, new Uint8Array([7, 1, 2]));
    produce(1);
    await waitForRecords(2);
    await expect.poll(async () => (await rowTexts("record"))[0]).toContain("unknown framing: framing byte 0x07");
    await expect.poll(async () => (await figures(page)).Unreadable).toBe("1");
  });

  test("a hundred bombs neither break the page nor stop it", async () => {
    await open();
    const bomb = new Uint8Array([1, 0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 1, 0, 0]);
    for (let i = 0; i < 100; i += 1) {
      server.record(0, bomb);
    }
    produce(1);
    await waitForRecords(101);
    await expect.poll(async () => (await figures(page)).Unreadable).toBe("100");
  });

  test("without a worker the page decodes all the same", async () => {
    await open("/?worker=off");
    produce(500);
    await waitForRecords(500);
    expect(page.workers()).toHaveLength(0);
  });

  test("a service that has no use for this page is not asked again and again", async () => {
    await open();
    server.dropConnections(4500);
    await until(
      "stopped",
      () => streamSignal(page),
      (text) => text === "stopped",
    );
    await expect.poll(() => page.locator(".alert-error").innerText()).toContain("got no hello");
    await page.getByRole("button", { name: "Try now" }).click();
    await until(
      "live",
      () => streamSignal(page),
      (text) => text === "live",
    );
    await expect.poll(() => page.locator(".alert-error").count()).toBe(0);
  });

  test("the service's own state is shown, and unknown once it is silent", async () => {
    server.ingest = { status: "degraded", reasons: ["redis_unreachable"] };
    await open();
    await until(
      "degraded",
      () => serviceSignal(page),
      (text) => text === "degraded: redis unreachable",
    );
    await server.stop();
    await until(
      "unknown",
      () => serviceSignal(page),
      (text) => text.startsWith("unknown"),
    );
    await picture(page, "disconnected");
    await server.start();
  });
});

describe("a lost connection", () => {
  test.each([
    ["cut", null],
    ["closed by a restart", 1001],
    ["closed as too slow", 4001],
  ])("that is %s is made up for without a hole or a duplicate", async (_, code) => {
    await open();
    produce(40, 0);
    produce(10, 3);
    await waitForRecords(50);
    await server.stop(code);
    await until(
      "the page notices",
      () => streamSignal(page),
      (text) => text.startsWith("reconnecting"),
    );
    produce(300, 0);
    produce(7, 2, "run-new");
    await server.start();
    await waitForRecords(357);
    expect(server.hellos.at(-1)).toMatchObject({
      from: "cursor",
      lastOffsetsByPartition: { "0": "39", "3": "9" },
      epoch: "epoch-1",
    });
    await expect
      .poll(() => positions(page))
      .toEqual(
        new Map([
          [0, 340n],
          [1, 0n],
          [2, 7n],
          [3, 10n],
        ]),
      );
    await expect.poll(async () => (await figures(page))["Lost offsets"]).toBe("0");
    await expect.poll(() => page.locator(".row-hole").count()).toBe(0);
  });

  test("is survived many times while events arrive", async () => {
    await open();
    const timer = setInterval(() => produce(5, Number(sequence % 4n)), 10);
    try {
      for (let i = 0; i < 4; i += 1) {
        await new Promise((resolve) => setTimeout(resolve, 150));
        server.dropConnections();
        await until(
          "a new session",
          () => server.sessionCount,
          (count) => count > 0,
        );
      }
    } finally {
      clearInterval(timer);
    }
    const total = Number(sequence);
    await waitForRecords(total);
    await expect.poll(async () => (await figures(page))["Lost offsets"]).toBe("0");
  });

  test("and a reload go on at the stored position", async () => {
    await open();
    produce(10);
    await waitForRecords(10);
    await page.reload();
    produce(5);
    await waitForRecords(5);
    expect(server.hellos.at(-1)).toMatchObject({ from: "cursor", lastOffsetsByPartition: { "0": "9" } });
  });

  test("a broken stored position does not keep the page from connecting", async () => {
    await page.addInitScript((key) => localStorage.setItem(key, "abc"), `dashstream.v2.cursor:${server.namespace}`);
    await open();
    expect(server.hellos).toMatchObject([{ from: "latest" }]);
    await expect
      .poll(() => page.locator(".alert").allInnerTexts())
      .toEqual([expect.stringContaining("stored position was unreadable")]);
  });
});

describe("history", () => {
  const progress = () => page.locator('[data-testid="history-progress"]');
  const button = (name: string) => page.getByRole("button", { name, exact: true });
  const systemRows = (): Promise<string[]> =>
    page.$$eval(".row-history, .row-live, .row-gap, .row-hole, .row-reset", (rows) =>
      rows.map((row) => (row as HTMLElement).innerText.replaceAll("\n", " ")),
    );
  const live = () =>
    until(
      "live",
      () => streamSignal(page),
      (text) => text === "live",
    );

  const focused = () => page.evaluate(() => document.activeElement?.textContent);

  /** Another service in place of the usual one, with a log of its own. */
  async function serveWith(options: FakeOptions): Promise<void> {
    await server.stop();
    server = new FakeServer({ partitions: 4, heartbeatMs: 300, page: DIST, ...options });
    await server.start();
  }

  test("is loaded on request only, in parts, and goes over into what is live without a hole", async () => {
    await serveWith({ maxTotal: 500, pageSize: 100 });
    produce(700, 0);
    produce(600, 3);
    await open();
    await expect.poll(() => recordCount()).toBe("0");
    await button("From the beginning").click();
    await waitForRecords(1300);
    await live();
    expect(server.resumes).toMatchObject([
      { from: "earliest" },
      { from: "cursor", epoch: "epoch-1", lastOffsetsByPartition: { "0": "499" } },
      { from: "cursor", lastOffsetsByPartition: { "0": "699", "3": "299" } },
    ]);
    produce(3, 3);
    await waitForRecords(1303);
    await expect.poll(async () => (await positions(page)).get(3)).toBe(603n);
    await expect.poll(() => systemRows()).toEqual(["live Live from here on, after 1,300 records of history"]);
    await expect.poll(async () => (await figures(page))["Lost offsets"]).toBe("0");
    await page.getByRole("grid").focus();
    await page.keyboard.press("Home");
    await until(
      "the first row",
      systemRows,
      (rows) => rows[0] === "history From the beginning on; the list begins anew",
    );
    await picture(page, "history");
  });

  test("shows how far it has come, and is left by keyboard with a word on what is left out", async () => {
    await serveWith({ pageSize: 50, pages: 10 });
    produce(9_000);
    await open();
    const box = await page.getByRole("grid").boundingBox();
    await button("From the beginning").focus();
    await page.keyboard.press("Enter");
    await until(
      "progress",
      () => progress().innerText(),
      (text) => text === "History from the beginning: 5 %, 8,500 left",
    );
    await expect.poll(() => page.getByRole("progressbar", { name: "History loaded" }).count()).toBe(1);
    await expect.poll(() => page.getByRole("grid").boundingBox()).toEqual(box);
    await expect.poll(async () => (await figures(page))["Apply lag"]).toMatch(/^8500 · \d/);
    await picture(page, "history-progress");
    await until("the focus on the way back", focused, (text) => text === "Back to live");
    await page.keyboard.press("Enter");
    await live();
    await until("the focus where it was", focused, (text) => text === "From the beginning");
    await expect
      .poll(() => systemRows())
      .toEqual([expect.stringContaining("gap Partition 0: 8,500 offsets passed over, 500 to 8999 (jumped)")]);
    produce(2);
    await waitForRecords(502);
    await until(
      "no lag",
      async () => (await figures(page))["Apply lag"],
      (lag) => lag === "0 · 0 s",
    );
  });

  test("begins at a time, near or as it is typed in", async () => {
    const now = Date.now();
    for (let minutes = 120; minutes > 0; minutes -= 10) {
      sequence += 1n;
      server.record(0, eventValue("run-1", sequence), [], now - minutes * 60_000 + 30_000);
    }
    await open();
    await button("Last hour").click();
    await waitForRecords(6);
    await button("Last 15 min").click();
    await waitForRecords(1);
    const field = page.getByLabel("From", { exact: true });
    await expect.poll(() => button("Load").isDisabled()).toBe(true);
    await field.fill("2999-01-01T00:00");
    await expect.poll(() => button("Load").isDisabled()).toBe(true);
    const local = new Date(now - 35 * 60_000);
    const text = new Date(local.getTime() - local.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
    await field.fill(text);
    await field.press("Enter");
    await waitForRecords(3);
    await live();
    expect(server.resumes.at(-1)).toMatchObject({
      from: "time",
      time: String(Math.trunc(local.getTime() / 1000) * 1000),
    });
    await expect
      .poll(() => systemRows())
      .toEqual([
        expect.stringMatching(/^history From .*2\d{3}.* on/),
        "live Live from here on, after 3 records of history",
      ]);
  });

  test("that takes the service too long is asked for again", async () => {
    server.timeouts = Number.POSITIVE_INFINITY;
    produce(50);
    await open();
    await button("From the beginning").click();
    await until(
      "the wait",
      () => progress().innerText(),
      (text) => /needs longer, asking again in \d+ s/.test(text),
    );
    await picture(page, "history-waits");
    server.timeouts = 0;
    await waitForRecords(50);
    await live();
    expect(server.resumes.slice(0, 2)).toMatchObject([{ from: "earliest" }, { from: "cursor" }]);
  });

  test("goes on where it was over a reload and over a restart", async () => {
    await serveWith({ pageSize: 50, pages: 6 });
    produce(2_000);
    await open();
    await button("From the beginning").click();
    await waitForRecords(300);
    await page.reload();
    server.allowPages(4);
    await waitForRecords(200);
    expect(server.hellos.at(-1)).toMatchObject({
      from: "cursor",
      epoch: "epoch-1",
      lastOffsetsByPartition: { "0": "299" },
    });
    await server.stop(1001);
    server.allowPages(1_000);
    await server.start();
    await waitForRecords(1_700);
    await live();
    await expect.poll(() => systemRows()).toEqual(["live Live from here on; 1,700 records made up for"]);
    await expect.poll(async () => (await positions(page)).get(0)).toBe(2_000n);
  });

  test("that retention has taken is a gap, and the position moves on", async () => {
    await open();
    produce(10);
    await waitForRecords(10);
    await server.stop();
    produce(40);
    server.trim(0, 40);
    await server.start();
    await until("all rows", systemRows, (rows) => rows.length === 3);
    await expect
      .poll(() => systemRows())
      .toEqual([
        expect.stringContaining("gap Partition 0: 30 offsets lost, 10 to 39 (retention)"),
        expect.stringContaining("reset Partition 0: the position was moved (retention); goes on at 40"),
        "live Live from here on; 10 records made up for",
      ]);
    await expect.poll(() => page.locator(".alert-warning").innerText()).toContain("goes on at offset 40");
    await expect.poll(async () => (await figures(page))["Lost offsets"]).toBe("30");
  });
});

describe("a defect of the stream", () => {
  test("a hole is found, said, and made up for by a reconnect", async () => {
    await open();
    produce(5);
    await waitForRecords(5);
    server.injectHole(0, 1);
    server.skip(0, 0);
    server.dropConnections();
    produce(6);
    await waitForRecords(11);
    await until(
      "the alert",
      () => page.locator(".alert-error").count(),
      (count) => count > 0,
    );
    await expect
      .poll(() => page.locator(".alert-error").innerText())
      .toContain("a frame began at offset 6 where offset 5 was due");
    await expect.poll(async () => (await figures(page))["Lost offsets"]).toBe("0");
    await picture(page, "hole-recovered");
  });

  test("a hole that stays is drawn as lost, and the stream goes on", async () => {
    await open();
    produce(5);
    await waitForRecords(5);
    server.injectHole(0, 3);
    server.dropConnections();
    produce(6);
    await until(
      "the hole",
      () => rowTexts("hole"),
      (rows) => rows.length === 1,
    );
    await expect
      .poll(() => rowTexts("hole"))
      .toEqual([expect.stringContaining("defect Partition 0: 1 offset lost, 5 (unexplained)")]);
    await waitForRecords(10);
    produce(1);
    await waitForRecords(11);
    await picture(page, "hole");
  });

  test("a frame of garbage leads to a reconnect, not to a frozen page", async () => {
    await open();
    server.sendRaw(new Uint8Array([255, 255, 255]));
    await until(
      "the alert",
      () => page.locator(".alert-error").count(),
      (count) => count > 0,
    );
    await until(
      "live again",
      () => streamSignal(page),
      (text) => text === "live",
    );
    produce(3);
    await waitForRecords(3);
  });
});

test("a topic that was created anew is said, and stored positions are dropped", async () => {
  await open();
  produce(50);
  await waitForRecords(50);
  await page.evaluate(() => localStorage.setItem("dashstream.v2.cursor:other", "theirs"));
  server.recreateTopic("epoch-2");
  await until(
    "the banner",
    () => page.locator(".alert-warning").count(),
    (count) => count > 0,
  );
  await expect.poll(() => page.locator(".alert-warning").innerText()).toContain("topic_recreated");
  await expect.poll(() => rowTexts("reset")).toHaveLength(4);
  produce(2);
  await waitForRecords(52);
  await picture(page, "reset");
  await page.reload();
  await until(
    "live",
    () => streamSignal(page),
    (text) => text === "live",
  );
  expect(server.hellos.at(-1)).toMatchObject({ epoch: "epoch-2", lastOffsetsByPartition: { "0": "1" } });
  await expect.poll(() => page.evaluate(() => localStorage.getItem("dashstream.v2.cursor:other"))).toBe("theirs");
});

test("a partition that is added appears from its first event", async () => {
  await open();
  server.addPartition(9);
  produce(3, 9);
  await waitForRecords(3);
  await expect.poll(async () => (await positions(page)).get(9)).toBe(3n);
});

describe("the list", () => {
  test("pauses the view and not the stream, and shows everything after", async () => {
    await open();
    produce(3);
    await waitForRecords(3);
    await page.getByRole("button", { name: "Pause" }).click();
    produce(20);
    await until(
      "the waiting rows",
      () => page.locator(".toolbar button.primary").innerText(),
      (text) => text.includes("20 waiting"),
    );
    await expect.poll(() => rowTexts("record")).toHaveLength(3);
    await picture(page, "paused");
    await page.getByRole("button", { name: /Continue/ }).click();
    await until(
      "all rows",
      () => rowTexts("record"),
      (rows) => rows.length >= 20,
    );
  });

  test("filters by text, and by a run", async () => {
    await open();
    produce(3, 0, "alpha");
    produce(2, 1, "beta");
    await waitForRecords(5);
    await page.getByRole("searchbox").fill("beta node_start");
    await until(
      "two rows",
      () => rowTexts("record"),
      (rows) => rows.length === 2,
    );
    await page.getByRole("searchbox").fill("");
    await page.getByRole("button", { name: /alpha/ }).click();
    await until(
      "three rows",
      () => rowTexts("record"),
      (rows) => rows.length === 3,
    );
  });

  test("opens a record with every digit of its numbers, by mouse and by keyboard", async () => {
    await open();
    server.record(
      0,
      framed({
        case: "stateDiff",
        value: {
          header: { threadId: "t", sequence: 2n ** 64n - 1n },
          fullState: new TextEncoder().encode('{"n":9007199254740993}'),
        },
      }),
    );
    produce(2);
    await waitForRecords(3);
    await page.getByRole("grid").focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowDown");
    const details = page.locator(".details");
    await expect.poll(() => details.innerText()).toContain("18446744073709551615");
    await expect.poll(() => details.innerText()).toContain('"n": 9007199254740993');
    await picture(page, "details");
    await page.keyboard.press("Escape");
    await expect.poll(() => details.count()).toBe(0);
    await page.locator('[data-row="record"]').nth(1).click();
    await expect.poll(() => details.innerText()).toContain("run-1");
  });

  test("holds twenty thousand rows with a few in the document, and stays in place when somebody reads", async () => {
    await open();
    produce(25_000);
    await waitForRecords(25_000);
    await expect.poll(() => page.locator('[data-row="record"]').count()).toBeLessThan(100);
    await expect
      .poll(() => page.locator('[data-testid="row-count"]').innerText())
      .toMatch(/^20,000 rows, 5,\d+ older ones no longer kept/);
    await page.locator(".viewport").evaluate((element) => {
      element.scrollTop = 200_000;
    });
    const middle = () => page.locator('[data-row="record"]').nth(20).innerText();
    // Rows near the place are drawn in more than one step: twice the same text is the place.
    let last = "";
    const before = await until("scrolled", middle, (text) => {
      const settled = !text.includes("24,9") && text === last;
      last = text;
      return settled;
    });
    produce(500);
    await waitForRecords(25_500);
    await expect.poll(() => middle()).toBe(before);
    await page.getByRole("button", { name: "Newest" }).click();
    await until(
      "the newest",
      () => rowTexts("record"),
      (rows) => rows.some((row) => row.includes("0:25499")),
    );
  });
});
