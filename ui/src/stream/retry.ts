// The wait before the next attempt: how many there were, and the timer.

import { retryDelayMs } from "./backoff";
import type { Environment, Timer } from "./environment";

export class Retry {
  readonly #env: Environment;
  #attempt = 0;
  #timer: Timer | null = null;

  constructor(env: Environment) {
    this.#env = env;
  }

  /** Attempts since the last session that lasted. */
  get attempt(): number {
    return this.#attempt;
  }

  /** Waits, then acts; a wait that is under way is replaced. Returns when it ends. `spreadMs` is added by chance. */
  schedule(action: () => void, spreadMs: number): number {
    this.cancel();
    this.#attempt += 1;
    const delayMs = retryDelayMs(this.#attempt, this.#env.random()) + spreadMs * this.#env.random();
    this.#timer = this.#env.setTimer(() => {
      this.#timer = null;
      action();
    }, delayMs);
    return this.#env.now() + delayMs;
  }

  cancel(): void {
    if (this.#timer !== null) {
      this.#env.clearTimer(this.#timer);
      this.#timer = null;
    }
  }

  /** A session has lasted: the next wait is short again. */
  settle(): void {
    this.#attempt = 0;
  }
}
