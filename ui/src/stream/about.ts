// What the service says of itself, asked until it is known.

import type { ServiceVersion } from "../wire/version";
import type { Environment } from "./environment";
import type { StreamEvent } from "./events";

export class About {
  readonly #env: Environment;
  readonly #emit: (event: StreamEvent) => void;
  #isKnown = false;

  constructor(env: Environment, emit: (event: StreamEvent) => void) {
    this.#env = env;
    this.#emit = emit;
  }

  /** Null when the service cannot be asked. */
  async ask(): Promise<ServiceVersion | null> {
    const version = await this.#env.fetchVersion().catch(() => null);
    if (version !== null) {
      this.#isKnown = true;
      this.#emit({ type: "version", version });
    }
    return version;
  }

  /** For a service that could not be asked before. */
  askAgain(): void {
    if (!this.#isKnown) {
      void this.ask();
    }
  }
}
