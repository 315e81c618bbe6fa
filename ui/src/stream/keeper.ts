// Keeps the applied position where a later page finds it, under the namespace that the service names.

import type { Cursor } from "../wire/hello";
import type { CursorStore, Loaded } from "./cursor_store";

export class Keeper {
  readonly #store: CursorStore;
  #namespace: string | null = null;

  constructor(store: CursorStore) {
    this.#store = store;
  }

  /** The position to begin with. `named` is the service's namespace, null when it could not be asked. */
  load(named: string | null): Loaded {
    this.#namespace = named ?? this.#store.lastNamespace();
    return this.#namespace === null ? { cursor: null, warning: null } : this.#store.load(this.#namespace);
  }

  /** From now on positions belong to this namespace. */
  enter(namespace: string): void {
    this.#namespace = namespace;
  }

  /** For this tab alone, or for every tab of the browser. False when there is no namespace yet. */
  save(cursor: Cursor, wallMs: number, scope: "tab" | "browser"): boolean {
    if (this.#namespace === null) {
      return false;
    }
    this.#store.save(this.#namespace, cursor, wallMs, scope);
    return true;
  }

  drop(): void {
    if (this.#namespace !== null) {
      this.#store.drop(this.#namespace);
    }
  }
}
