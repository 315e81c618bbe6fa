// How far a load of history, or a catch-up after an absence, has come. Pure.

import type { Place } from "../wire/hello";

export interface LoadingView {
  /** Where the history that somebody asked for begins; null for a catch-up. */
  history: Place | null;
  /** Monotonic time at which it began. */
  sinceMs: number;
  records: number;
  /** Offsets left; null while nobody knows. */
  remaining: bigint | null;
  /** Whole percent, never falling; null while nobody knows. */
  percent: number | null;
}

export class Loading {
  readonly history: Place | null;
  readonly #sinceMs: number;
  #records = 0;
  #done = 0n;
  #remaining: bigint | null = null;
  #percent = 0;

  /** Asked for, and not answered yet. */
  constructor(history: Place | null, nowMs: number) {
    this.history = history;
    this.#sinceMs = nowMs;
  }

  get records(): number {
    return this.#records;
  }

  /** So much is left from here on, as far as the service knows. */
  left(remaining: bigint | null): void {
    this.#remaining = remaining;
    this.#measure();
  }

  applied(offsets: bigint, records: number): void {
    this.#records += records;
    this.#done += offsets;
    if (this.#remaining !== null) {
      this.#remaining = this.#remaining > offsets ? this.#remaining - offsets : 0n;
      this.#measure();
    }
  }

  view(): LoadingView {
    const percent = this.#remaining === null ? null : this.#percent;
    const { history, records } = this;
    return { history, sinceMs: this.#sinceMs, records, remaining: this.#remaining, percent };
  }

  #measure(): void {
    const remaining = this.#remaining ?? 0n;
    const total = this.#done + remaining;
    // Live records arrive meanwhile: it is done when the service says so.
    const percent = total === 0n ? 0 : Math.min(99, Number((this.#done * 100n) / total));
    this.#percent = Math.max(this.#percent, percent);
  }
}
