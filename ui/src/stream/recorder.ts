// What the page has applied, told to the service and kept for the next page.

import type { Environment } from "./environment";
import { Keeper } from "./keeper";
import type { Positions } from "./positions";
import { Progress } from "./progress";

export class Recorder {
  readonly #env: Environment;
  readonly #positions: Positions;
  readonly #send: (text: string) => boolean;
  readonly #keeper: Keeper;
  readonly #progress = new Progress();
  #isLive = false;

  /** `send` says whether there was a session to take the report. */
  constructor(env: Environment, positions: Positions, send: (text: string) => boolean) {
    this.#env = env;
    this.#positions = positions;
    this.#send = send;
    this.#keeper = new Keeper(env.store);
  }

  /**
   * Takes over the stored position. Returns a warning when there was one that could not be read. `named` is the service's
   * namespace, null when it could not be asked.
   */
  load(named: string | null): string | null {
    const { cursor, warning } = this.#keeper.load(named);
    if (cursor !== null) {
      this.#positions.restore(cursor);
    }
    return warning;
  }

  /** A stream begins, with positions under this namespace. */
  begin(namespace: string): void {
    this.#keeper.enter(namespace);
    this.#progress.begin();
    this.#isLive = false;
  }

  /**
   * The stream has reached what is live. Only then other tabs begin where this one stands: what somebody loads here is
   * no reason for them to load it too.
   */
  live(): void {
    this.#isLive = true;
    this.#progress.moved();
  }

  /** A frame of the partition is applied. */
  applied(partition: number, bytes: number): void {
    const next = this.#positions.partitions.get(partition);
    if (next !== undefined) {
      this.#progress.applied(partition, next, bytes);
    }
  }

  /** Offsets became void: what is stored of them has to go, and what stands instead is stored soon. */
  drop(): void {
    this.#keeper.drop();
    this.#progress.moved();
  }

  reportWhenDue(): void {
    if (this.#progress.isReportDue(this.#env.now())) {
      this.#report();
    }
  }

  /** Reports and stores what is due. */
  tick(): void {
    this.reportWhenDue();
    if (this.#progress.isSaveDue(this.#env.now())) {
      this.#save();
    }
  }

  /** Reports and stores now. */
  flush(): void {
    this.#report();
    this.#save();
  }

  #report(): void {
    const applied = this.#progress.report();
    if (applied !== null && this.#send(applied)) {
      this.#progress.reported(this.#env.now());
    }
  }

  #save(): void {
    const cursor = this.#positions.cursor();
    if (this.#progress.isUnsaved && cursor !== null) {
      const scope = this.#isLive ? "browser" : "tab";
      if (this.#keeper.save(cursor, this.#env.wallMs(), scope)) {
        this.#progress.saved(this.#env.now());
      }
    }
  }
}
