// A list that forgets its oldest entries, bounded by count and by bytes. Entries keep their absolute index for ever.

export class Ring<T extends { bytes: number }> {
  readonly #maxCount: number;
  readonly #maxBytes: number;
  #items: T[] = [];
  #head = 0;
  #first = 0;
  #bytes = 0;
  #cleared = 0;

  constructor(maxCount: number, maxBytes: number) {
    this.#maxCount = maxCount;
    this.#maxBytes = maxBytes;
  }

  /** Absolute index of the oldest entry that is kept. */
  get first(): number {
    return this.#first;
  }

  /** Entries that went over a bound since the ring was cleared. */
  get forgotten(): number {
    return this.#first - this.#cleared;
  }

  /** Absolute index after the newest entry. */
  get end(): number {
    return this.#first + this.length;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  at(index: number): T | undefined {
    return index < this.#first ? undefined : this.#items[this.#head + index - this.#first];
  }

  last(): T | undefined {
    return this.length === 0 ? undefined : this.#items[this.#items.length - 1];
  }

  push(item: T): void {
    this.#items.push(item);
    this.#bytes += item.bytes;
    // The newest entry always stays, even when it alone is over the bound.
    while (this.length > this.#maxCount || (this.#bytes > this.#maxBytes && this.length > 1)) {
      this.#forgetOldest();
    }
  }

  replaceLast(item: T): void {
    const last = this.last();
    if (last !== undefined) {
      this.#items[this.#items.length - 1] = item;
      this.#bytes += item.bytes - last.bytes;
    }
  }

  clear(): void {
    this.#first = this.end;
    this.#cleared = this.#first;
    this.#items = [];
    this.#head = 0;
    this.#bytes = 0;
  }

  /** A copy of what is kept, oldest first. */
  toArray(): T[] {
    return this.#items.slice(this.#head);
  }

  #forgetOldest(): void {
    const oldest = this.#items[this.#head];
    this.#bytes -= oldest?.bytes ?? 0;
    this.#head += 1;
    this.#first += 1;
    if (this.#head >= 4096 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    } else {
      // Lets go of the entry now; the slot goes with the next compaction.
      (this.#items as (T | undefined)[])[this.#head - 1] = undefined;
    }
  }
}
