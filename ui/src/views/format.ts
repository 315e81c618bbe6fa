// Numbers and times as the views print them.

import type { Place } from "../wire/hello";

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const date = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const zone = new Intl.DateTimeFormat("en", { timeZoneName: "longOffset" });
const grouped = new Intl.NumberFormat("en-US");

/** `14:03:07.123` in the browser's time zone. */
export function timeOfDay(ms: number): string {
  return `${clock.format(ms)}.${String(Math.trunc(ms) % 1000).padStart(3, "0")}`;
}

/** Where history begins, in the browser's time zone. */
export function placeText(place: Place): string {
  switch (place.from) {
    case "earliest":
      return "the beginning";
    case "latest":
      return "now";
    case "time":
      return date.format(place.timeMs);
  }
}

/** What a field for a local time holds, in Unix milliseconds; null when that is no time since 1970. */
export function parseLocalTime(text: string): number | null {
  const ms = /^\d{4,6}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?$/.test(text) ? new Date(text).getTime() : Number.NaN;
  return ms >= 0 ? ms : null;
}

/** The browser's distance from UTC at a time, as `UTC+01:00`. */
export function utcOffset(ms: number): string {
  const name = zone.formatToParts(ms).find((part) => part.type === "timeZoneName")?.value ?? "UTC";
  return name.replace("GMT", "UTC");
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
