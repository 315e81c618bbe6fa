// The promise, checked over seeded chaos: cuts, restarts and new partitions at any moment, a slow decoder, page reloads.

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
  | { type: "reload" };

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
);

/** A server in a few lines: it sends each session everything from its cursor on. */
class World {
  ends = Array.from({ length: PARTITIONS }, () => 5n);
  /** The offsets that the pages applied, in order, per partition. */
  applied: bigint[][] = Array.from({ length: PARTITIONS }, () => []);
  env: FakeEnvironment;
  client: StreamClient;
  #sent: bigint[] | null = null;

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
        this.#push();
        return;
      case "cut":
        this.env.socket.end(1006);
        this.env.advance(31_000 / 2);
        this.#accept();
        return;
      case "hold":
      case "release":
        if (decoder !== null) {
          decoder.isHolding = step.type === "hold";
          if (step.type === "release") {
            decoder.release();
          }
        }
        return;
      case "reload":
        this.client.dispose();
        await this.load(this.env.storage);
    }
  }

  #accept(): void {
    const before = this.env.sockets.length;
    if (this.env.socket.readyState !== 0) {
      while (this.env.sockets.length === before) {
        this.env.advance(100);
      }
    }
    this.env.socket.open();
    const hello = this.env.socket.sent[0] as { from: string; lastOffsetsByPartition?: Record<string, string> };
    const from: Record<string, bigint> = {};
    for (let partition = 0; partition < PARTITIONS; partition += 1) {
      const last = hello.lastOffsetsByPartition?.[partition];
      const end = this.ends[partition] ?? 0n;
      from[partition] = hello.from === "latest" ? end : last === undefined ? 0n : BigInt(last) + 1n;
    }
    this.env.socket.text(welcome(from));
    this.#sent = Object.values(from);
    this.#push();
  }

  #push(): void {
    const sent = this.#sent ?? [];
    for (const [partition, next] of sent.entries()) {
      const end = this.ends[partition] ?? 0n;
      if (next < end) {
        this.env.socket.binary(frameOf(partition, next, end));
        sent[partition] = end;
      }
    }
  }
}

test("each offset from the start is applied exactly once, in order, whatever happens", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { maxLength: 40 }), async (sequence) => {
      const world = await World.create();
      for (const step of sequence) {
        await world.run(step);
      }
      await world.run({ type: "release" });
      for (const [partition, offsets] of world.applied.entries()) {
        const expected: bigint[] = [];
        for (let offset = 5n; offset < (world.ends[partition] ?? 0n); offset += 1n) {
          expected.push(offset);
        }
        expect(offsets).toEqual(expected);
      }
    }),
    { numRuns: 300, ...(process.env.SEED === undefined ? {} : { seed: Number(process.env.SEED) }) },
  );
});
