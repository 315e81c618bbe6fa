// The runs that were heard of last. Choosing one filters the events by its thread.

import type { Run } from "../model/runs";
import { count } from "./format";
import { Id } from "./Id";

interface Props {
  runs: Run[];
  total: number;
  filter: string;
  setFilter: (text: string) => void;
}

export function RunList({ runs, total, filter, setFilter }: Props) {
  return (
    <section className="panel runs" aria-labelledby="runs-title">
      <h2 id="runs-title">
        Runs <span className="muted">{count(total)}</span>
      </h2>
      <ul className="scroll">
        {runs.map((run) => (
          <RunItem
            key={run.key}
            run={run}
            isChosen={filter !== "" && filter === run.thread}
            choose={() => setFilter(filter === run.thread ? "" : run.thread)}
          />
        ))}
        {runs.length === 0 ? <li className="empty">No run seen yet.</li> : null}
      </ul>
    </section>
  );
}

function RunItem({ run, isChosen, choose }: { run: Run; isChosen: boolean; choose: () => void }) {
  const started = run.sawStart ? "" : "its start was before this page was opened";
  return (
    <li>
      <button type="button" className="run" aria-pressed={isChosen} onClick={choose} title={started}>
        <span className="run-line">
          <span className="run-thread">
            <Id text={run.thread} />
          </span>
          <span className={`run-status run-${run.status}`}>{run.status}</span>
        </span>
        <span className="run-line run-more">
          <span className="run-detail">
            {[run.tenant, run.graph, run.node].filter((part) => part !== "").join(" · ")}
          </span>
          <span className="run-count">
            {count(run.events)} {run.events === 1 ? "event" : "events"}
            {run.errors > 0 ? <span className="tone-bad"> · {count(run.errors)} failed</span> : null}
          </span>
        </span>
      </button>
    </li>
  );
}
