// 64-bit numbers at the border to JSON: decimal strings outside, bigint inside, never a double in between.

const MAX_OFFSET = 2n ** 63n - 1n;
const DECIMAL = /^(?:0|[1-9][0-9]{0,18})$/;

/** Reads an offset (0 to 2^63-1) from a decimal string or a safe integer; anything else is null. */
export function parseOffset(value: unknown): bigint | null {
  if (typeof value === "number") {
    return Number.isSafeInteger(value) && value >= 0 ? BigInt(value) : null;
  }
  if (typeof value !== "string" || !DECIMAL.test(value)) {
    return null;
  }
  const parsed = BigInt(value);
  return parsed <= MAX_OFFSET ? parsed : null;
}

/** Reads a partition number (0 to 2^31-1) from a number or an object key; anything else is null. */
export function parsePartition(value: unknown): number | null {
  const text = typeof value === "number" ? String(value) : value;
  if (typeof text !== "string" || !/^(?:0|[1-9][0-9]{0,9})$/.test(text)) {
    return null;
  }
  const parsed = Number(text);
  return parsed <= 2_147_483_647 ? parsed : null;
}

/** Cuts a text at a character boundary and marks the cut. Costs nothing for short texts. */
export function cut(text: string, maxChars: number): string {
  if (text.length <= maxChars) {
    return text;
  }
  let end = maxChars;
  const last = text.charCodeAt(end - 1);
  if (last >= 0xd800 && last <= 0xdbff) {
    end -= 1;
  }
  return `${text.slice(0, end)}…`;
}
