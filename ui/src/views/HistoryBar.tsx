// History is shown on request only: from where, how far it has come, and the way back. One strip of one height, so that
// nothing moves when it changes.

import { useEffect, useRef, useState } from "react";
import type { LoadingView } from "../model/loading";
import type { Snapshot } from "../store/store";
import type { ConnectionStatus } from "../stream/events";
import type { Place } from "../wire/hello";
import { count, parseLocalTime, placeText, utcOffset } from "./format";
import type { Commands } from "./TopBar";

/** A catch-up that is over before somebody has read of it is not worth a word. */
const QUIET_MS = 1_000;
const MINUTE_MS = 60_000;

export function HistoryBar({ snapshot, commands }: { snapshot: Snapshot; commands: Commands }) {
  const { loading, connection, nowMs } = snapshot;
  const isShown = loading !== null && (loading.history !== null || nowMs - loading.sinceMs > QUIET_MS);
  const cancel = useRef<HTMLButtonElement>(null);
  const first = useRef<HTMLButtonElement>(null);
  const bar = useRef<HTMLElement>(null);
  useSteadyFocus(bar, isShown ? cancel : first, isShown);
  return (
    <section className="history" aria-label="History" ref={bar}>
      {isShown ? (
        <div className="history-line">
          <progress aria-label="History loaded" max={100} value={loading.percent ?? undefined} />
          <span className="history-text" data-testid="history-progress">
            {progressText(loading, connection, nowMs)}
          </span>
          <span className="spacer" />
          {connection.state === "parked" ? (
            <button type="button" onClick={commands.retryNow}>
              Ask now
            </button>
          ) : null}
          <button type="button" ref={cancel} onClick={() => commands.goTo({ from: "latest" })}>
            Back to live
          </button>
        </div>
      ) : (
        <Choices first={first} load={commands.goTo} />
      )}
    </section>
  );
}

function Choices({ first, load }: { first: React.Ref<HTMLButtonElement>; load: (place: Place) => void }) {
  const [text, setText] = useState("");
  const timeMs = parseLocalTime(text);
  const isUsable = timeMs !== null && timeMs <= Date.now();
  const ago = (minutes: number) => load({ from: "time", timeMs: Date.now() - minutes * MINUTE_MS });
  return (
    <div className="history-line">
      <span className="muted" title="The list begins anew there and goes on to what is live">
        Load history
      </span>
      <button type="button" ref={first} onClick={() => load({ from: "earliest" })}>
        From the beginning
      </button>
      <button type="button" onClick={() => ago(60)}>
        Last hour
      </button>
      <button type="button" onClick={() => ago(15)}>
        Last 15 min
      </button>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (isUsable) {
            load({ from: "time", timeMs });
          }
        }}
      >
        <label htmlFor="history-time">From</label>
        <input
          id="history-time"
          type="datetime-local"
          step={1}
          value={text}
          aria-describedby="history-zone"
          aria-invalid={text !== "" && !isUsable}
          onChange={(event) => setText(event.target.value)}
        />
        <span id="history-zone" className="muted">
          local time, {utcOffset(timeMs ?? Date.now())}
        </span>
        <button type="submit" disabled={!isUsable} title={isUsable ? undefined : "Needs a time in the past"}>
          Load
        </button>
      </form>
    </div>
  );
}

/** What the strip says while history is on its way. */
export function progressText(loading: LoadingView, connection: ConnectionStatus, nowMs: number): string {
  const what = loading.history === null ? "Catching up" : `History from ${placeText(loading.history)}`;
  if (connection.state === "parked") {
    const seconds = Math.max(0, Math.ceil((connection.untilMs - nowMs) / 1000));
    return `${what}: the service needs longer, asking again in ${seconds} s`;
  }
  if (connection.state === "waiting" || connection.state === "connecting" || connection.state === "stopped") {
    return `${what}: waiting for the connection`;
  }
  return loading.percent === null || loading.remaining === null
    ? `${what}: asking the service`
    : `${what}: ${loading.percent} %, ${count(loading.remaining)} left`;
}

/** A button that had the focus hands it on when it goes: who uses the keyboard stays where they are. */
function useSteadyFocus(
  bar: React.RefObject<HTMLElement | null>,
  target: React.RefObject<HTMLButtonElement | null>,
  isShown: boolean,
): void {
  const hadFocus = useRef(false);
  useEffect(() => {
    const onFocus = (event: FocusEvent) => {
      hadFocus.current = bar.current?.contains(event.target as Node) ?? false;
    };
    document.addEventListener("focusin", onFocus);
    return () => document.removeEventListener("focusin", onFocus);
  }, [bar]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `isShown` says when buttons come and go
  useEffect(() => {
    if (hadFocus.current && document.activeElement === document.body) {
      target.current?.focus();
    }
  }, [isShown, target]);
}
