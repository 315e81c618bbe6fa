// How long to wait before the next attempt, and whether there is one. Pure: chance is an argument.

const FIRST_MS = 500;
const CAP_MS = 30_000;

/** Delay before attempt `attempt` (1 is the first retry); `random` in [0, 1). Half of it is jitter. */
export function retryDelayMs(attempt: number, random: number): number {
  const ceiling = Math.min(CAP_MS, FIRST_MS * 2 ** Math.min(Math.max(0, attempt - 1), 16));
  return Math.round(ceiling / 2 + (ceiling / 2) * random);
}

export type CloseDecision =
  | { action: "retry"; reason: string }
  /** At the server's wish: all its clients come at once, so the first delay is spread. */
  | { action: "retry_spread"; reason: string }
  | { action: "stop"; reason: string };

/** What a close code of the server means for the client. */
export function onClose(code: number, reason: string): CloseDecision {
  const named = reason === "" ? "" : ` (${reason.slice(0, 120)})`;
  switch (code) {
    case 1000:
      return { action: "retry", reason: "the service closed the connection" };
    case 1001:
      return { action: "retry_spread", reason: "the service is restarting" };
    case 1006:
      return { action: "retry", reason: "the connection was lost" };
    case 1002:
      return { action: "stop", reason: `the service could not read what this page sent${named}` };
    case 1008:
      return { action: "stop", reason: `the service refused this page${named}` };
    case 1009:
      return { action: "stop", reason: `the service refused a frame of this page as too large${named}` };
    case 4000:
      return { action: "retry", reason: "the service heard nothing from this page" };
    case 4001:
      return { action: "retry", reason: "this page read too slowly" };
    case 4002:
      return { action: "retry", reason: "the session failed in the service" };
    case 4501:
      return { action: "stop", reason: "the token that was shown has ended" };
    case 4500:
      return { action: "stop", reason: "the service got no hello from this page" };
    default:
      if (code >= 4500 && code <= 4999) {
        return { action: "stop", reason: `the service refused this page, code ${code}${named}` };
      }
      return { action: "retry", reason: `the connection was closed, code ${code}${named}` };
  }
}

/** Close codes that this page sends. Browsers allow 1000 and 3000 to 4999 only. */
export const CLOSE = { normal: 1000, violation: 4900, silence: 4901, stalled: 4902 } as const;
