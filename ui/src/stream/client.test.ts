import { beforeEach, describe, expect, test } from "vitest";
import { FakeEnvironment, MemoryStore } from "../../testing/fake_environment";
import { frameOf, frameOfValues, gapFrame, welcome } from "../../testing/frames";
import { eventValue, framed } from "../../testing/messages";
import { StreamClient } from "./client";
import type { StreamEvent } from "./events";

let env: FakeEnvironment;
let client: StreamClient;

async function open(storage?: MemoryStore): Promise<void> {
  env = new FakeEnvironment(storage);
  client = new StreamClient(env, env.record);
  await client.start();
  env.socket.open();
}

/** Opens the next connection after a wait. */
function reconnect(): void {
  const before = env.sockets.length;
  while (env.sockets.length === before) {
    env.advance(50);
  }
  env.socket.open();
}

function covered(partition: number): string[] {
  const ranges: string[] = [];
  for (const event of env.events) {
    if (event.type === "data" && event.frame.partition === partition) {
      ranges.push(`${event.frame.first}-${event.frame.next}`);
    }
  }
  return ranges;
}

function seen<T extends StreamEvent["type"]>(type: T): Extract<StreamEvent, { type: T }>[] {
  return env.events.filter((event): event is Extract<StreamEvent, { type: T }> => event.type === type);
}

function status(): string {
  return seen("status").at(-1)?.status.state ?? "none";
}

const stored = (): Record<string, unknown> =>
  JSON.parse(env.storage.values.get("dashstream.v2.cursor:space") ?? "{}") as Record<string, unknown>;

/** The topic was created anew, and the partition begins at `nextOffset`. */
const anew = (partition: number, nextOffset = "0"): object => ({
  type: "cursor_reset",
  partition,
  reason: "topic_recreated",
  nextOffset,
  epoch: "epoch-2",
});

beforeEach(() => open());

describe("a session", () => {
  test("begins at the newest on a first visit", () => {
    expect(env.socket.sent).toMatchObject([{ type: "hello", from: "latest" }]);
  });

  test("is live once the replay is complete", () => {
    env.socket.text(welcome({ "0": 5n }));
    expect(status()).toBe("catching_up");
    env.socket.text({ type: "replay_complete", capped: false });
    expect(status()).toBe("live");
  });

  test("reports applied positions once a second, and earlier when much was applied", () => {
    env.socket.text(welcome({ "0": 0n }));
    env.socket.binary(frameOf(0, 0n, 3n));
    env.socket.binary(frameOf(0, 3n, 4n));
    expect(env.socket.sent.slice(1)).toEqual([{ type: "applied", offsets: { "0": "2" } }]);
    env.advance(1000);
    expect(env.socket.sent.at(-1)).toEqual({ type: "applied", offsets: { "0": "3" } });
    env.advance(200);
    for (let at = 4n; at < 8004n; at += 2000n) {
      env.socket.binary(frameOf(0, at, at + 2000n));
    }
    // Once 256 KiB were applied, long before the second is over.
    expect(env.socket.sent.at(-1)).toEqual({ type: "applied", offsets: { "0": "6003" } });
  });

  test("applies control frames in their place between frames that are still being decoded", () => {
    env.socket.text(welcome({ "0": 0n }));
    const decoder = env.decoder;
    if (decoder === null) {
      throw new Error("no decoder");
    }
    decoder.isHolding = true;
    env.socket.binary(frameOf(0, 0n, 2n));
    env.socket.text({ type: "cursor_reset", partition: 0, reason: "retention", nextOffset: "50" });
    env.socket.binary(frameOf(0, 50n, 51n));
    expect(seen("reset")).toEqual([]);
    decoder.release();
    expect(covered(0)).toEqual(["0-2", "50-51"]);
    expect(seen("reset")).toMatchObject([{ before: 2n, nextOffset: 50n }]);
  });

  test("pings when it had nothing to say for a heartbeat", () => {
    env.socket.text(welcome({ "0": 0n }));
    for (let i = 0; i < 3; i += 1) {
      env.advance(2500);
      env.socket.text({ type: "heartbeat" });
    }
    expect(env.socket.sent.at(-1)).toEqual({ type: "ping" });
  });
});

describe("a reconnect", () => {
  test("goes on at the applied position, with the epoch, and misses nothing", () => {
    env.socket.text(welcome({ "0": 10n, "1": 0n }));
    env.socket.binary(frameOf(0, 10n, 12n));
    env.socket.end(1006);
    expect(status()).toBe("waiting");
    reconnect();
    expect(env.socket.sent[0]).toMatchObject({
      from: "cursor",
      epoch: "epoch-1",
      default: "earliest",
      lastOffsetsByPartition: { "0": "11" },
    });
    env.socket.text(welcome({ "0": 12n, "1": 0n }));
    env.socket.binary(frameOf(0, 12n, 13n));
    env.socket.binary(frameOf(1, 0n, 1n));
    expect(covered(0)).toEqual(["10-12", "12-13"]);
    expect(covered(1)).toEqual(["0-1"]);
  });

  test("does not count what was received and not yet applied", () => {
    env.socket.text(welcome({ "0": 10n }));
    const decoder = env.decoder;
    if (decoder === null) {
      throw new Error("no decoder");
    }
    decoder.isHolding = true;
    env.socket.binary(frameOf(0, 10n, 12n));
    env.socket.end(1006);
    reconnect();
    expect(env.socket.sent[0]).toMatchObject({ lastOffsetsByPartition: { "0": "9" } });
    env.socket.text(welcome({ "0": 10n }));
    decoder.release();
    expect(covered(0)).toEqual([]);
    decoder.isHolding = false;
    env.socket.binary(frameOf(0, 10n, 12n));
    expect(covered(0)).toEqual(["10-12"]);
  });

  test("ignores everything that an older connection still delivers", () => {
    env.socket.text(welcome({ "0": 0n }));
    const old = env.socket;
    env.decoder?.lose("the worker died");
    reconnect();
    env.socket.text(welcome({ "0": 5n }));
    old.binary(frameOf(0, 0n, 1n));
    old.end(1006);
    expect(covered(0)).toEqual([]);
    expect(status()).toBe("catching_up");
  });

  test("waits longer each time, for ever, until a session has lasted for seconds", () => {
    const waits: number[] = [];
    for (let i = 0; i < 40; i += 1) {
      env.socket.end(1006);
      const last = seen("status").at(-1)?.status;
      waits.push(last?.state === "waiting" ? last.untilMs - env.now() : -1);
      reconnect();
      env.socket.text(welcome({ "0": 0n }));
    }
    expect(waits.slice(0, 4)).toEqual([375, 750, 1500, 3000]);
    expect(Math.max(...waits)).toBeLessThanOrEqual(30_000);
    env.advance(3000);
    env.socket.text({ type: "heartbeat" });
    env.socket.end(1006);
    const last = seen("status").at(-1)?.status;
    expect(last?.state === "waiting" && last.untilMs - env.now()).toBe(375);
  });

  test.each([1002, 1008, 1009, 4500, 4999])("does not follow code %d until somebody asks", (code) => {
    env.socket.text(welcome({ "0": 0n }));
    env.socket.end(code, "why");
    expect(status()).toBe("stopped");
    env.advance(600_000);
    expect(env.sockets.length).toBe(1);
    client.retryNow();
    expect(env.sockets.length).toBe(2);
  });

  test("follows silence of two heartbeats", () => {
    env.socket.text(welcome({ "0": 0n }));
    env.advance(11_000);
    expect(env.sockets[0]?.closedWith).toBe(4901);
    expect(seen("notice")).toMatchObject([{ text: "no heartbeat from the service" }]);
  });

  test("follows a service that never answers the hello", () => {
    env.advance(41_500);
    expect(env.sockets[0]?.closedWith).toBe(4901);
    expect(env.sockets.length).toBe(2);
  });

  test("follows a refused hello", () => {
    env.socket.text({ type: "error", code: "not_ready", message: "later" });
    expect(status()).toBe("waiting");
  });

  test("follows the loss of the decoder", () => {
    env.socket.text(welcome({ "0": 0n }));
    env.decoder?.lose("the worker died");
    expect(status()).toBe("waiting");
    expect(env.sockets[0]?.closedWith).toBe(4902);
  });
});

describe("a breach of the promise", () => {
  const breaches: [string, () => void][] = [
    ["a hole", () => env.socket.binary(frameOf(0, 1n, 2n))],
    [
      "a frame twice",
      () => {
        env.socket.binary(frameOf(0, 0n, 1n));
        env.socket.binary(frameOf(0, 0n, 1n));
      },
    ],
    ["a partition that was never agreed", () => env.socket.binary(frameOf(7, 0n, 1n))],
    ["a frame of garbage", () => env.socket.binary(new Uint8Array([255, 255]).buffer)],
    ["a control frame of garbage", () => env.socket.text("{")],
    [
      "a new log without a name",
      () => env.socket.text({ type: "cursor_reset", partition: 0, reason: "manual_reset", nextOffset: "9" }),
    ],
    ["a second welcome", () => env.socket.text(welcome({ "0": 0n }))],
  ];
  test.each(breaches)("%s is reported and answered by a reconnect from the applied position", (_, breach) => {
    env.socket.text(welcome({ "0": 0n }));
    breach();
    expect(seen("notice").at(-1)).toMatchObject({ level: "error", topic: "protocol" });
    expect(env.sockets[0]?.closedWith).toBe(4900);
    expect(status()).toBe("waiting");
  });

  test("a hole over a reconnect is found", () => {
    env.socket.text(welcome({ "0": 0n }));
    env.socket.binary(frameOf(0, 0n, 5n));
    env.socket.end(1006);
    reconnect();
    env.socket.text(welcome({ "0": 8n }));
    env.socket.binary(frameOf(0, 8n, 9n));
    expect(env.socket.closedWith).toBe(4900);
  });

  test("that comes back at the same place is shown as a hole, and the stream goes on", () => {
    env.socket.text(welcome({ "0": 0n }));
    for (let i = 0; i < 3; i += 1) {
      env.socket.binary(frameOf(0, 3n, 5n));
      if (i < 2) {
        reconnect();
        env.socket.text(welcome({ "0": 0n }));
      }
    }
    expect(seen("hole")).toEqual([{ type: "hole", partition: 0, first: 0n, next: 3n, reason: "unexplained" }]);
    expect(covered(0)).toEqual(["3-5"]);
    env.socket.binary(frameOf(0, 5n, 6n));
    expect(covered(0)).toEqual(["3-5", "5-6"]);
  });

  test("data before welcome is one", () => {
    env.socket.binary(frameOf(0, 0n, 1n));
    expect(env.socket.closedWith).toBe(4900);
  });
});

describe("the stored position", () => {
  test("is written after applying, and a new page goes on there", async () => {
    env.socket.text(welcome({ "0": 7n, "1": 0n }));
    env.socket.binary(frameOf(0, 7n, 9n));
    client.flush();
    expect(stored()).toMatchObject({ epoch: "epoch-1", lastOffsetsByPartition: { "0": "8", "1": "-1" } });
    await open(env.storage);
    expect(env.socket.sent[0]).toMatchObject({
      from: "cursor",
      epoch: "epoch-1",
      lastOffsetsByPartition: { "0": "8" },
    });
  });

  test("of the first visit is where the session began, also without any record", async () => {
    env.socket.text(welcome({ "0": 7n }));
    client.flush();
    await open(env.storage);
    expect(env.socket.sent[0]).toMatchObject({ from: "cursor", lastOffsetsByPartition: { "0": "6" } });
  });

  test.each([
    "abc",
    "",
    "-1",
    "{}",
    "[]",
    "null",
    '{"version":1}',
    "x".repeat(2_000_000),
    '{"version":1,"epoch":"e","lastOffsetsByPartition":{"0":"-2"}}',
  ])("that is broken counts as a first visit and is removed (%#)", async (broken) => {
    const storage = new MemoryStore();
    storage.setItem("dashstream.v2.cursor:space", broken);
    await open(storage);
    expect(env.socket.sent).toMatchObject([{ type: "hello", from: "latest" }]);
    expect(storage.values.has("dashstream.v2.cursor:space")).toBe(false);
  });

  test("of another namespace is neither used nor touched", async () => {
    const storage = new MemoryStore();
    storage.setItem("dashstream.v2.cursor:other", "theirs");
    await open(storage);
    env.socket.text(welcome({ "0": 0n }));
    env.socket.text(anew(0));
    expect(storage.values.get("dashstream.v2.cursor:other")).toBe("theirs");
  });

  test.each([null, ""])("is used also when the service cannot tell its namespace (%j)", async (namespace) => {
    env.socket.text(welcome({ "0": 7n }));
    client.flush();
    const before = env.storage;
    env = new FakeEnvironment(before);
    env.namespace = namespace;
    client = new StreamClient(env, env.record);
    await client.start();
    env.socket.open();
    expect(env.socket.sent[0]).toMatchObject({ from: "cursor" });
  });

  test("is dropped by a reset, and no old offset is ever sent again", async () => {
    env.socket.text(welcome({ "0": 100n, "1": 200n }));
    env.socket.binary(frameOf(0, 100n, 101n));
    client.flush();
    env.socket.text(anew(0));
    expect(env.storage.values.has("dashstream.v2.cursor:space")).toBe(false);
    env.socket.text(anew(1));
    env.socket.binary(frameOf(0, 0n, 2n));
    client.flush();
    await open(env.storage);
    expect(env.socket.sent[0]).toMatchObject({ epoch: "epoch-2", lastOffsetsByPartition: { "0": "1" } });
  });

  test("of an older epoch is void: the resets of the new one say where each partition goes on", () => {
    env.socket.text(welcome({ "0": 100n }));
    client.flush();
    env.socket.end(1006);
    reconnect();
    env.socket.text(welcome({ "0": 0n }, "epoch-2"));
    expect(env.storage.values.has("dashstream.v2.cursor:space")).toBe(false);
    env.socket.text(anew(0));
    env.socket.binary(frameOf(0, 0n, 1n));
    expect(covered(0)).toEqual(["0-1"]);
    expect(seen("reset")).toMatchObject([{ reason: "topic_recreated", nextOffset: 0n }]);
  });

  test.each([
    [0, "epoch-1", { "0": "99", "1": "199" }],
    [1, "epoch-2", { "0": "6" }],
    [2, "epoch-2", { "0": "6", "1": "2" }],
  ])(
    "never mixes two epochs when the connection ends after the resets of %i of two partitions",
    (told, epoch, last) => {
      const resets = [anew(0, "7"), anew(1, "3")];
      env.socket.text(welcome({ "0": 100n, "1": 200n }));
      env.socket.end(1006);
      reconnect();
      env.socket.text(welcome({ "0": 7n, "1": 3n }, "epoch-2"));
      const say = (frames: object[]) => {
        for (const frame of frames) {
          env.socket.text(frame);
        }
      };
      say(resets.slice(0, told));
      client.flush();
      expect(stored()).toMatchObject({ epoch, lastOffsetsByPartition: last });
      env.socket.end(1006);
      reconnect();
      expect(env.socket.sent[0]).toMatchObject({ from: "cursor", default: "earliest", epoch });
      expect(env.socket.sent[0]?.lastOffsetsByPartition).toEqual(last);
      env.socket.text(welcome({ "0": 7n, "1": 3n }, "epoch-2"));
      // Who comes back with a cursor of the old log is told again.
      say(told === 0 ? resets : []);
      env.socket.binary(frameOf(0, 7n, 9n));
      env.socket.binary(frameOf(1, 3n, 4n));
      expect([covered(0), covered(1)]).toEqual([["7-9"], ["3-4"]]);
      expect(seen("notice")).toEqual([]);
    },
  );

  test("of an open session is of one epoch too, when it ends between the resets", () => {
    env.socket.text(welcome({ "0": 100n, "1": 200n }));
    env.socket.text(anew(0));
    env.socket.binary(frameOf(0, 0n, 2n));
    env.socket.end(1006);
    reconnect();
    expect(env.socket.sent[0]).toMatchObject({ epoch: "epoch-2", lastOffsetsByPartition: { "0": "1" } });
    env.socket.text(welcome({ "0": 2n, "1": 0n }, "epoch-2"));
    env.socket.binary(frameOf(1, 0n, 4n));
    env.socket.binary(frameOf(0, 2n, 3n));
    expect([covered(0), covered(1)]).toEqual([["0-2", "2-3"], ["0-4"]]);
    expect(seen("notice")).toEqual([]);
  });

  test("rests on offsets alone, whatever numbers producers give their records", async () => {
    const batch = framed({
      case: "eventBatch",
      value: { header: { threadId: "b" }, events: [{ header: { threadId: "b", sequence: 4n } }] },
    });
    const values = [eventValue("a", 900n), eventValue("b", 3n), batch];
    env.socket.text(welcome({ "0": 10n }));
    env.socket.binary(frameOfValues(0, 10n, values));
    client.flush();
    await open(env.storage);
    expect(env.socket.sent[0]).toMatchObject({ from: "cursor", lastOffsetsByPartition: { "0": "12" } });
    env.socket.text(welcome({ "0": 13n }));
    env.socket.binary(frameOfValues(0, 13n, values));
    expect([covered(0), seen("notice")]).toEqual([["13-16"], []]);
  });

  test("does not outlive a storage that throws", async () => {
    const storage = new MemoryStore();
    storage.setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
    await open(storage);
    env.socket.text(welcome({ "0": 0n }));
    env.socket.binary(frameOf(0, 0n, 1n));
    env.advance(5000);
    expect(covered(0)).toEqual(["0-1"]);
  });
});

describe("a replay in parts", () => {
  const asks = (): Record<string, unknown>[] => env.socket.sent.filter((frame) => frame.type === "resume");
  const capped = { type: "replay_complete", capped: true };
  const timeout = { type: "error", code: "replay_timeout", message: "later" };

  test("is asked on from what is applied, and only once all of it is", () => {
    env.socket.text(welcome({ "0": 0n }));
    env.advance(1_000);
    const decoder = env.decoder;
    if (decoder === null) {
      throw new Error("no decoder");
    }
    decoder.isHolding = true;
    env.socket.binary(frameOf(0, 0n, 3n));
    env.socket.text(capped);
    env.advance(2_000);
    expect(asks()).toEqual([]);
    decoder.release();
    expect(asks()).toEqual([
      { type: "resume", from: "cursor", default: "earliest", epoch: "epoch-1", lastOffsetsByPartition: { "0": "2" } },
    ]);
    expect(status()).toBe("catching_up");
    decoder.isHolding = false;
    env.socket.text(welcome({ "0": 3n }));
    env.socket.binary(frameOf(0, 3n, 5n));
    env.socket.text({ type: "replay_complete", capped: false });
    expect(covered(0)).toEqual(["0-3", "3-5"]);
    expect([status(), seen("caught_up").length, seen("notice").length]).toEqual(["live", 1, 0]);
    expect(seen("welcome").map((event) => event.mode)).toEqual(["first", "on"]);
  });

  test("is never asked for in a tight loop, less and less often when nothing comes of it", () => {
    env.socket.text(welcome({ "0": 0n }));
    for (let at = 0n; at < 20n; at += 1n) {
      env.socket.binary(frameOf(0, at, at + 1n));
      env.socket.text(capped);
      const before = asks().length;
      while (asks().length === before) {
        env.advance(100);
        env.socket.text({ type: "heartbeat" });
      }
      env.socket.text(welcome({ "0": at + 1n }));
    }
    // The service takes 20 of them in 10 s.
    expect(env.now()).toBeGreaterThan(11_000);
    const before = asks().length;
    const began = env.now();
    for (let i = 0; i < 5; i += 1) {
      env.socket.text(capped);
      const count = asks().length;
      while (asks().length === count) {
        env.advance(100);
        env.socket.text({ type: "heartbeat" });
      }
      env.socket.text(welcome({ "0": 20n }));
    }
    expect(asks().length - before).toBe(5);
    expect(env.now() - began).toBeGreaterThan(8_000);
  });

  test("that ran out of time is asked on from the same position, after a wait that somebody may end", () => {
    env.socket.text(welcome({ "0": 0n }));
    env.socket.binary(frameOf(0, 0n, 2n));
    env.socket.text(timeout);
    env.socket.text(capped);
    expect(status()).toBe("parked");
    expect(seen("caught_up")).toEqual([]);
    env.advance(200);
    expect(asks()).toEqual([]);
    env.advance(1_000);
    expect(asks()).toMatchObject([{ from: "cursor", lastOffsetsByPartition: { "0": "1" } }]);
    env.socket.text(welcome({ "0": 2n }));
    env.socket.text(timeout);
    env.socket.text(capped);
    expect(status()).toBe("parked");
    client.retryNow();
    expect(asks().length).toBe(2);
  });

  test("goes on in the new epoch when the topic was created anew while it stood still", () => {
    env.socket.text(welcome({ "0": 50n }));
    env.socket.binary(frameOf(0, 50n, 52n));
    env.socket.text(timeout);
    env.socket.text(anew(0));
    env.advance(2_000);
    expect(asks()).toMatchObject([{ epoch: "epoch-2", lastOffsetsByPartition: { "0": "-1" } }]);
  });
});

describe("history", () => {
  const asks = (): Record<string, unknown>[] => env.socket.sent.filter((frame) => frame.type === "resume");

  test("moves the open session, and what was on its way before counts where it belongs", () => {
    env.socket.text(welcome({ "0": 100n }));
    env.socket.text({ type: "replay_complete", capped: false });
    client.goTo({ from: "earliest" });
    expect(asks()).toEqual([{ type: "resume", from: "earliest" }]);
    expect(status()).toBe("catching_up");
    env.socket.binary(frameOf(0, 100n, 101n));
    env.socket.text(welcome({ "0": 7n }));
    env.socket.binary(frameOf(0, 7n, 9n));
    expect(covered(0)).toEqual(["100-101", "7-9"]);
    expect(seen("welcome").at(-1)).toMatchObject({ mode: "history", history: { from: "earliest" } });
    expect(env.sockets.length).toBe(1);
  });

  test("is asked for with the first frame when there is no connection", () => {
    env.socket.text(welcome({ "0": 100n }));
    env.socket.end(1006);
    client.goTo({ from: "time", timeMs: 1234 });
    env.socket.open();
    expect(env.socket.sent).toMatchObject([{ type: "hello", from: "time", time: "1234" }]);
    env.socket.text(welcome({ "0": 7n }));
    expect(seen("hole")).toEqual([]);
    env.socket.end(1006);
    reconnect();
    expect(env.socket.sent).toMatchObject([{ type: "hello", from: "cursor", lastOffsetsByPartition: { "0": "6" } }]);
  });

  test("survives a lost connection before it is answered", () => {
    env.socket.text(welcome({ "0": 100n }));
    client.goTo({ from: "earliest" });
    env.socket.end(1006);
    reconnect();
    expect(env.socket.sent).toMatchObject([{ type: "hello", from: "earliest" }]);
  });

  test("is asked for one question at a time, the last wish wins", () => {
    env.socket.text(welcome({ "0": 100n }));
    client.goTo({ from: "earliest" });
    client.goTo({ from: "time", timeMs: 5 });
    client.goTo({ from: "latest" });
    expect(asks().length).toBe(1);
    env.socket.text({ type: "replay_complete", capped: true });
    env.socket.text(welcome({ "0": 0n }));
    expect(asks()).toMatchObject([{ from: "earliest" }, { from: "latest" }]);
    env.socket.binary(frameOf(0, 0n, 3n));
    env.socket.text(welcome({ "0": 100n }));
    expect(seen("hole")).toMatchObject([{ first: 3n, next: 100n, reason: "jumped" }]);
  });

  test("of a time that the log cannot find yet is asked for again", () => {
    env.socket.text(welcome({ "0": 100n }));
    env.socket.text({ type: "replay_complete", capped: false });
    client.goTo({ from: "time", timeMs: 5 });
    env.socket.text({ type: "error", code: "replay_timeout", message: "try again" });
    expect(status()).toBe("parked");
    // The stream goes on meanwhile.
    env.socket.binary(frameOf(0, 100n, 101n));
    env.advance(1_500);
    expect(asks()).toMatchObject([{ from: "time" }, { from: "time" }]);
    env.socket.text(welcome({ "0": 50n }));
    expect(covered(0)).toEqual(["100-101"]);
  });

  test("that is refused for good is given up, and the stream goes on as it was", () => {
    env.socket.text(welcome({ "0": 100n }));
    env.socket.text({ type: "replay_complete", capped: false });
    client.goTo({ from: "time", timeMs: 5 });
    env.socket.text({ type: "error", code: "invalid_field", message: "no" });
    expect(status()).toBe("live");
    expect(seen("wish").at(-1)).toEqual({ type: "wish", history: null });
    env.advance(3_000);
    expect(asks().length).toBe(1);
    env.socket.binary(frameOf(0, 100n, 101n));
    expect(covered(0)).toEqual(["100-101"]);
  });

  test("that is never answered ends in a reconnect that asks again", () => {
    env.socket.text(welcome({ "0": 100n }));
    client.goTo({ from: "earliest" });
    for (let i = 0; i < 45; i += 1) {
      env.advance(1_000);
      env.sockets[0]?.text({ type: "heartbeat" });
    }
    expect(env.sockets[0]?.closedWith).toBe(4901);
    env.socket.open();
    expect(env.socket.sent).toMatchObject([{ type: "hello", from: "earliest" }]);
  });

  test("is not reported as applied to a session that has not begun it", () => {
    env.socket.text(welcome({ "0": 100n }));
    env.socket.binary(frameOf(0, 100n, 101n));
    client.goTo({ from: "earliest" });
    const reports = () => env.socket.sent.filter((frame) => frame.type === "applied");
    const before = reports().length;
    env.socket.binary(frameOf(0, 101n, 102n));
    env.advance(2_000);
    expect(reports().length).toBe(before);
    env.socket.text(welcome({ "0": 0n }));
    env.socket.binary(frameOf(0, 0n, 1n));
    env.advance(2_000);
    expect(reports().at(-1)).toEqual({ type: "applied", offsets: { "0": "0" } });
  });

  test("is the tab's own until it has reached what is live", async () => {
    const [tab, browser] = [new MemoryStore(), new MemoryStore()];
    const key = "dashstream.v2.cursor:space";
    env = new FakeEnvironment(tab, browser);
    client = new StreamClient(env, env.record);
    await client.start();
    env.socket.open();
    env.socket.text(welcome({ "0": 100n }));
    env.socket.text({ type: "replay_complete", capped: false });
    client.flush();
    const live = browser.values.get(key);
    expect(live).toContain('"99"');
    client.goTo({ from: "earliest" });
    env.socket.text(welcome({ "0": 0n }));
    env.socket.binary(frameOf(0, 0n, 4n));
    client.flush();
    expect([tab.values.get(key), browser.values.get(key)]).toEqual([expect.stringContaining('"3"'), live]);
  });
});

test("a jump to live says what it passed over", () => {
  env.socket.text(welcome({ "0": 10n }));
  env.socket.binary(frameOf(0, 10n, 12n));
  client.goTo({ from: "latest" });
  expect(env.socket.sent.at(-1)).toEqual({ type: "resume", from: "latest" });
  env.socket.binary(frameOf(0, 12n, 14n));
  env.socket.text(welcome({ "0": 500n }));
  expect(seen("hole")).toEqual([{ type: "hole", partition: 0, first: 14n, next: 500n, reason: "jumped" }]);
  env.socket.binary(frameOf(0, 500n, 501n));
  expect(covered(0)).toEqual(["10-12", "12-14", "500-501"]);
});

test("a gap of retention moves the position once, keeps what is stored, and the stream goes on", () => {
  env.socket.text(welcome({ "0": 0n }));
  env.socket.binary(gapFrame(0, 0n, 40n));
  env.socket.text({
    type: "cursor_reset",
    partition: 0,
    reason: "retention",
    nextOffset: "40",
    epoch: "epoch-1",
  });
  env.socket.binary(frameOf(0, 40n, 41n));
  expect(covered(0)).toEqual(["0-40", "40-41"]);
  expect(seen("reset")).toMatchObject([{ reason: "retention", newEpoch: false, before: 40n, nextOffset: 40n }]);
  client.flush();
  expect(stored()).toMatchObject({ epoch: "epoch-1", lastOffsetsByPartition: { "0": "40" } });
});

test("a partition that stood at 0 and lost its beginning meanwhile must say so", () => {
  env.socket.text(welcome({ "0": 0n }));
  env.socket.end(1006);
  reconnect();
  expect(env.socket.sent[0]).toMatchObject({ from: "cursor", lastOffsetsByPartition: { "0": "-1" } });
  env.socket.text(welcome({ "0": 30n }));
  env.socket.binary(frameOf(0, 30n, 31n));
  expect(env.socket.closedWith).toBe(4900);
});

test("a new partition begins where the service says", () => {
  env.socket.text(welcome({ "0": 0n }));
  env.socket.text({ type: "partition_added", partition: 5, from: "0" });
  env.socket.binary(frameOf(5, 0n, 2n));
  expect(covered(5)).toEqual(["0-2"]);
});

test("a partition of which an instance hears later goes on where this page is, and nowhere else", () => {
  env.socket.text(welcome({ "0": 0n, "5": 0n }));
  env.socket.binary(frameOf(5, 0n, 2n));
  for (const added of [true, false]) {
    env.socket.end(1006);
    reconnect();
    expect(env.socket.sent[0]).toMatchObject({ lastOffsetsByPartition: { "5": "1" } });
    env.socket.text(welcome({ "0": 0n }));
    if (added) {
      env.socket.text({ type: "partition_added", partition: 5, from: "2" });
    }
  }
  env.socket.text({ type: "partition_added", partition: 5, from: "2" });
  env.socket.binary(frameOf(5, 2n, 3n));
  expect(covered(5)).toEqual(["0-2", "2-3"]);
  env.socket.text({ type: "partition_added", partition: 5, from: "3" });
  expect(env.socket.closedWith).toBe(4900);
  reconnect();
  env.socket.text(welcome({ "0": 0n }));
  env.socket.text({ type: "partition_added", partition: 5, from: "0" });
  expect(env.socket.closedWith).toBe(4900);
});

test("another subprotocol stops the client with a reason", async () => {
  env = new FakeEnvironment();
  client = new StreamClient(env, env.record);
  await client.start();
  env.socket.protocol = "";
  env.socket.open();
  expect(status()).toBe("stopped");
});
