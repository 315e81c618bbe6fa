// Where the page stands in each partition.

import { lagOf, type PartitionState } from "../model/partitions";
import { count, milliseconds } from "./format";

export function PartitionTable({ partitions }: { partitions: PartitionState[] }) {
  return (
    <section className="panel partitions" aria-labelledby="partitions-title">
      <h2 id="partitions-title">
        Partitions <span className="muted">{partitions.length}</span>
      </h2>
      <div className="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">
                <abbr title="Partition">P</abbr>
              </th>
              <th scope="col" title="The next offset that this page will apply">
                Position
              </th>
              <th scope="col" title="The end of what the service has read">
                End
              </th>
              <th scope="col" title="Offsets between position and end">
                Lag
              </th>
              <th scope="col" title="How long the last frame waited in this page before it was applied">
                Apply
              </th>
            </tr>
          </thead>
          <tbody>
            {partitions.map((state) => (
              <PartitionRow key={state.partition} state={state} />
            ))}
          </tbody>
        </table>
        {partitions.length === 0 ? <p className="empty">Known once the service has answered.</p> : null}
      </div>
    </section>
  );
}

function PartitionRow({ state }: { state: PartitionState }) {
  const lag = lagOf(state);
  const marks = [state.lost > 0n ? `${count(state.lost)} offsets lost` : "", state.resets > 0 ? "was reset" : ""];
  const title = marks.filter((mark) => mark !== "").join(", ");
  return (
    <tr className={state.lost > 0n ? "has-loss" : ""} title={title}>
      <th scope="row">{state.partition}</th>
      <td>{count(state.next)}</td>
      <td>{state.end === null ? "unknown" : count(state.end)}</td>
      <td className={lag !== null && lag > 1000n ? "tone-warn" : ""}>{lag === null ? "unknown" : count(lag)}</td>
      <td>{state.applyLagMs === null ? "–" : milliseconds(state.applyLagMs)}</td>
    </tr>
  );
}
