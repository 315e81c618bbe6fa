// Messages that stay on the page until somebody has seen them. Like ones are counted, not repeated.

export interface Alert {
  key: string;
  level: "info" | "warning" | "error";
  text: string;
  count: number;
}

const MAX_ALERTS = 6;

export class Alerts {
  #alerts = new Map<string, Alert>();

  raise(key: string, level: Alert["level"], text: string): void {
    const count = (this.#alerts.get(key)?.count ?? 0) + 1;
    this.#alerts.delete(key);
    this.#alerts.set(key, { key, level, text, count });
    if (this.#alerts.size > MAX_ALERTS) {
      const oldest = this.#alerts.keys().next();
      if (!oldest.done) {
        this.#alerts.delete(oldest.value);
      }
    }
  }

  dismiss(key: string): void {
    this.#alerts.delete(key);
  }

  list(): Alert[] {
    return [...this.#alerts.values()];
  }
}
