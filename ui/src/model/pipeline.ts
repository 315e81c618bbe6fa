// What the service says of itself, and since when. Nothing heard is unknown, never healthy.

export type PipelineView = { state: "unknown"; reasons: string[] } | { state: string; reasons: string[] };

export class Pipeline {
  #status = "";
  #reasons: string[] = [];
  #heardMs: number | null = null;
  #heartbeatMs = 10_000;

  expect(heartbeatMs: number): void {
    this.#heartbeatMs = heartbeatMs;
  }

  hear(status: string, reasons: string[], nowMs: number): void {
    this.#status = status;
    this.#reasons = reasons;
    this.#heardMs = nowMs;
  }

  /** The status, or unknown when the last heartbeat is older than two of them. */
  view(nowMs: number): PipelineView {
    if (this.#heardMs === null || this.#status === "") {
      return { state: "unknown", reasons: ["no heartbeat yet"] };
    }
    if (nowMs - this.#heardMs > 2 * this.#heartbeatMs) {
      return { state: "unknown", reasons: ["the last heartbeat is too old"] };
    }
    return { state: this.#status, reasons: this.#reasons };
  }
}
