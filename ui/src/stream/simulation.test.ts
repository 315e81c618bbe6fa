// The promise, checked over seeded chaos: cuts at any moment, a slow decoder, page reloads, history that comes in parts
// and runs out of time.

import fc from "fast-check";
import { expect, test } from "vitest";
import { FakeEnvironment, type MemoryStore } from "../../testing/fake_environment";
import { frameOf, welcome } from "../../testing/frames";
import { StreamClient } from "./client";

const PARTITIONS = 3;

type Step =
  | { type: "produce"; partition: number; count: number }
  | { type: "cut" }
  | { type: "hold" }
  | { type: "release" }
  | { type: "reload" }
  | { type: "history" }
  | { type: "wait"; ms: number };

const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant("produce" as const),
      partition: fc.nat(PARTITIONS - 1),
      count: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.constant<Step>({ type: "cut" }) },
  { weight: 2, arbitrary: fc.constant<Step>({ type: "hold" }) },
  { weight: 2, arbitrary: fc.constant<Step>({ type: "release" }) },
  { weight: 1, arbitrary: fc.constant<Step>({ type: "reload" }) },
  { weight: 1, arbitrary: fc.constant<Step>({ type: "history" }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant("wait" as const), ms: fc.integer({ min: 50, max: 4_000 }) }),
  },
);

/** Offsets of one replay; every fifth replay ends as one that ran out of time. */
const MAX_TOTAL = 3n;

/** A server in a few lines: it sends each session everything from its cursor on, in parts until it is live. */
class World {
  ends = Array.from({ length: PARTITIONS }, () => 5n);
  /** The offsets that the page applied since its list began, in order, per partition. */
  applied: bigint[][] = Array.from({ length: PARTITIONS }, () => []);
  /** Where the list began. */
  begins = Array.from({ length: PARTITIONS }, () => 5n);
  env: FakeEnvironment;
  client: StreamClient;
  #session: { sent: bigint[]; isParked: boolean } | null = null;
  #answered = 0;
  #replays = 0;

  private constructor(storage?: MemoryStore) {
    this.env = new FakeEnvironment(storage);
    this.client = new StreamClient(this.env, () => undefined);
  }

  static async create(): Promise<World> {
    const world = new World();
    await world.load();
    return world;
  }

  /** A new page on the same storage. */
  async load(storage?: MemoryStore): Promise<void> {
    this.env = new FakeEnvironment(storage);
    this.client = new StreamClient(this.env, (event) => {
      if (event.type === "data") {
        for (const item of event.frame.items) {
          if (item.type === "record") {
            this.applied[event.frame.partition]?.push(item.offset);
          }
        }
      } else if (event.type === "welcome" && event.mode === "history") {
        this.applied = this.applied.map(() => []);
        this.begins = this.begins.map(() => 0n);
      } else if (event.type === "notice") {
        throw new Error(event.text);
      }
    });
    await this.client.start();
    this.#accept();
  }

  async run(step: Step): Promise<void> {
    const decoder = this.env.decoder;
    switch (step.type) {
      case "produce":
        this.ends[step.partition] = (this.ends[step.partition] ?? 0n) + BigInt(step.count);
        this.#push(1_000n);
        return;
      case "cut":
        this.env.socket.end(1006);
        this.#accept();
        return;
      case "wait":
        this.#wait(step.ms);
        return;
      case "history":
        this.client.goTo({ from: "earliest" });
        this.#answer();
        return;
      case "hold":
      case "release":
        if (decoder !== null) {
          decoder.isHolding = step.type === "hold";
          if (step.type === "release") {
            decoder.release();
            this.#answer();
          }
        }
        return;
      case "reload":
        this.client.dispose();
        await this.load(this.env.storage);
    }
  }

  /** Until nothing more comes. */
  async settle(): Promise<void> {
    await this.run({ type: "release" });
    for (let i = 0; i < 40; i += 1) {
      this.#wait(1_000);
    }
  }

  #wait(ms: number): void {
    for (let waited = 0; waited < ms; waited += 500) {
      this.env.socket.text({ type: "heartbeat" });
      this.env.advance(Math.min(500, ms - waited));
      this.#answer();
    }
  }

  #accept(): void {
    const before = this.env.sockets.length;
    if (this.env.socket.readyState !== 0) {
      while (this.env.sockets.length === before) {
        this.env.advance(100);
      }
    }
    this.#session = null;
    this.#answered = 0;
    this.env.socket.open();
    this.#answer();
  }

  /** Answers what the page has asked. */
  #answer(): void {
    const { sent } = this.env.socket;
    for (; this.#answered < sent.length; this.#answered += 1) {
      const frame = sent[this.#answered] as {
        type: string;
        from: string;
        lastOffsetsByPartition?: Record<string, string>;
      };
      if (frame.type === "hello" || frame.type === "resume") {
        this.#begin(frame);
      }
    }
  }

  #begin({ from, lastOffsetsByPartition }: { from: string; lastOffsetsByPartition?: Record<string, string> }): void {
    const begins = this.ends.map((end, partition) => {
      const last = lastOffsetsByPartition?.[partition];
      return from === "latest" ? end : last === undefined ? 0n : BigInt(last) + 1n;
    });
    this.env.socket.text(welcome(Object.fromEntries(begins.entries())));
    this.#session = { sent: begins, isParked: false };
    this.#replays += 1;
    this.#push(MAX_TOTAL);
    const isDone = begins.every((at, partition) => at === this.ends[partition]);
    this.#session.isParked = !isDone;
    if (!isDone && this.#replays % 5 === 0) {
      this.env.socket.text({ type: "error", code: "replay_timeout", message: "later" });
    }
    this.env.socket.text({ type: "replay_complete", capped: !isDone });
  }

  /** Sends at most so many offsets, a frame of each partition in turn. */
  #push(limit: bigint): void {
    let left = limit;
    const { sent, isParked } = this.#session ?? { sent: [], isParked: true };
    for (const [partition, at] of sent.entries()) {
      const end = this.ends[partition] ?? 0n;
      const next = end - at > left ? at + left : end;
      if (!isParked && at < next) {
        this.env.socket.binary(frameOf(partition, at, next));
        left -= next - at;
        sent[partition] = next;
      }
    }
  }
}

test("each offset from where the list begins is applied exactly once, in order, whatever happens", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { maxLength: 40 }), async (sequence) => {
      const world = await World.create();
      for (const step of sequence) {
        await world.run(step);
      }
      await world.settle();
      for (const [partition, offsets] of world.applied.entries()) {
        const expected: bigint[] = [];
        for (let offset = world.begins[partition] ?? 0n; offset < (world.ends[partition] ?? 0n); offset += 1n) {
          expected.push(offset);
        }
        expect(offsets).toEqual(expected);
      }
    }),
    { numRuns: 300, ...(process.env.SEED === undefined ? {} : { seed: Number(process.env.SEED) }) },
  );
});
