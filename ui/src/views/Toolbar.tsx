// Filter and pause.

import type { Snapshot } from "../store/store";
import { count } from "./format";

interface Props {
  snapshot: Snapshot;
  setFilter: (text: string) => void;
  pause: () => void;
  resume: () => void;
  clearRows: () => void;
}

export function Toolbar({ snapshot, setFilter, pause, resume, clearRows }: Props) {
  const isPaused = snapshot.waitingRows !== null;
  const shown = snapshot.rows.length;
  return (
    <div className="toolbar">
      <h2 id="events-title">Events</h2>
      <input
        type="search"
        aria-label="Filter events"
        placeholder="Filter: thread, node, kind, text …"
        value={snapshot.filter}
        maxLength={200}
        onChange={(event) => setFilter(event.target.value)}
      />
      <span className="muted" data-testid="row-count">
        {count(shown)} {snapshot.filter === "" ? "rows" : "match"}
        {snapshot.forgotten > 0 ? `, ${count(snapshot.forgotten)} older ones no longer kept` : ""}
      </span>
      <span className="spacer" />
      <button type="button" onClick={clearRows} title="Empty the list; positions stay">
        Clear
      </button>
      <button
        type="button"
        className={isPaused ? "primary" : ""}
        aria-pressed={isPaused}
        onClick={isPaused ? resume : pause}
      >
        {isPaused ? `Continue (${count(snapshot.waitingRows ?? 0)} waiting)` : "Pause"}
      </button>
    </div>
  );
}
