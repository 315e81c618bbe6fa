// Rates over a sliding window of whole seconds. The clock is an argument and must be monotonic.

const WINDOW_S = 10;

export class Rate {
  #buckets: { second: number; amount: number }[] = [];
  #startedMs: number | null = null;

  add(amount: number, nowMs: number): void {
    this.#startedMs ??= nowMs;
    const second = Math.floor(nowMs / 1000);
    const last = this.#buckets[this.#buckets.length - 1];
    if (last?.second === second) {
      last.amount += amount;
      return;
    }
    this.#buckets.push({ second, amount });
    this.#trim(second);
  }

  /** Amount per second over the last ten seconds, or over the time since the first one when that is shorter. */
  perSecond(nowMs: number): number {
    if (this.#startedMs === null) {
      return 0;
    }
    this.#trim(Math.floor(nowMs / 1000));
    const sum = this.#buckets.reduce((total, bucket) => total + bucket.amount, 0);
    const seconds = Math.min(WINDOW_S, Math.max(1, (nowMs - this.#startedMs) / 1000));
    return sum / seconds;
  }

  #trim(second: number): void {
    while (this.#buckets[0] !== undefined && this.#buckets[0].second <= second - WINDOW_S) {
      this.#buckets.shift();
    }
  }
}
