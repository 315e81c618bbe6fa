// Numbers and times as the views print them.

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});
const grouped = new Intl.NumberFormat("en-US");

/** `14:03:07.123` in the browser's time zone. */
export function timeOfDay(ms: number): string {
  return `${clock.format(ms)}.${String(Math.trunc(ms) % 1000).padStart(3, "0")}`;
}

/** Digits in groups of three; exact for bigint. */
export function count(value: number | bigint): string {
  return grouped.format(value);
}

/** A rate with as many digits as it deserves. */
export function rate(perSecond: number): string {
  return perSecond >= 10 || perSecond === 0 ? grouped.format(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function milliseconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** `no_record` → `no record`. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}
