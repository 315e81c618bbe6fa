// When to tell the service what was applied, and when to store it. Pure: the clock is an argument.

import { buildApplied } from "../wire/hello";

const REPORT_EVERY_MS = 1_000;
/** A busy stream is reported earlier: the service counts what was sent and not reported as applied. */
const REPORT_EARLY_BYTES = 256 * 1024;
const REPORT_MIN_GAP_MS = 100;
const SAVE_EVERY_MS = 1_000;

export class Progress {
  #unreported = new Map<number, bigint>();
  #unreportedBytes = 0;
  #reportedMs = Number.NEGATIVE_INFINITY;
  #isUnsaved = false;
  #savedMs = Number.NEGATIVE_INFINITY;

  get isUnsaved(): boolean {
    return this.#isUnsaved;
  }

  /** A session begins: reports of an older one mean nothing to it. Its starting positions are worth storing. */
  begin(): void {
    this.#unreported.clear();
    this.#unreportedBytes = 0;
    this.#isUnsaved = true;
  }

  /** What is stored is out of date. */
  moved(): void {
    this.#isUnsaved = true;
  }

  /** Everything of the partition before `next` is applied. */
  applied(partition: number, next: bigint, bytes: number): void {
    this.#unreported.set(partition, next);
    this.#unreportedBytes += bytes;
    this.#isUnsaved = true;
  }

  isReportDue(nowMs: number): boolean {
    const elapsed = nowMs - this.#reportedMs;
    const isEarly = this.#unreportedBytes >= REPORT_EARLY_BYTES && elapsed >= REPORT_MIN_GAP_MS;
    return this.#unreported.size > 0 && (elapsed >= REPORT_EVERY_MS || isEarly);
  }

  /** The report of what is not reported yet, or null. Call `reported` once it was sent. */
  report(): string | null {
    return this.#unreported.size === 0 ? null : buildApplied(this.#unreported);
  }

  reported(nowMs: number): void {
    this.#unreported.clear();
    this.#unreportedBytes = 0;
    this.#reportedMs = nowMs;
  }

  isSaveDue(nowMs: number): boolean {
    return this.#isUnsaved && nowMs - this.#savedMs >= SAVE_EVERY_MS;
  }

  saved(nowMs: number): void {
    this.#isUnsaved = false;
    this.#savedMs = nowMs;
  }
}
