// Everything about the selected row. The message is decoded again from its bytes: rows keep no decoded messages.

import { useMemo } from "react";
import type { RecordRow, Row } from "../model/rows";
import { decodeRecord } from "../wire/decode";
import type { Framing } from "../wire/limits";
import { prettyMessage } from "../wire/pretty";
import { formatBytes } from "../wire/units";
import { describeFinding, describeSystemRow } from "./EventRow";
import { timeOfDay, words } from "./format";

export function Details({ row, framing, close }: { row: Row; framing: Framing; close: () => void }) {
  return (
    <aside className="panel details" aria-label="Details of the selected row">
      <div className="details-head">
        <h2>
          {row.type === "record" ? (row.summary?.name ? words(row.summary.name) : "unreadable record") : row.type}
        </h2>
        <button type="button" aria-label="Close details" onClick={close}>
          ✕
        </button>
      </div>
      {row.type === "record" ? (
        <RecordDetails row={row} framing={framing} />
      ) : (
        <p className="details-text">{describeSystemRow(row).text}</p>
      )}
    </aside>
  );
}

function RecordDetails({ row, framing }: { row: RecordRow; framing: Framing }) {
  const text = useMemo(() => render(row.value, framing), [row, framing]);
  const facts: [string, string][] = [
    ["Partition", String(row.partition)],
    ["Offset", row.offset.toString()],
    ["Producer's time", timeText(row.producerMs)],
    ["Kafka's time", timeText(row.kafkaMs)],
    ["Tenant", row.summary?.tenant || "–"],
    ["Thread", row.summary?.thread || "–"],
    [
      "Sequence",
      row.summary === null || row.summary.sequence === 0n ? "not numbered" : row.summary.sequence.toString(),
    ],
    ["Size in Kafka", formatBytes(row.value.length)],
  ];
  return (
    <div className="details-body">
      {row.findings.map((finding) => (
        <p key={`${finding.kind}:${finding.eventIndex}:${finding.found}`} className="details-finding">
          <strong>{words(finding.kind)}</strong> {describeFinding(finding)}
        </p>
      ))}
      {row.failure === null ? null : (
        <p className="details-failure">
          <strong>{words(row.failure.kind)}</strong> {row.failure.message}
        </p>
      )}
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard */}
      <pre tabIndex={0}>{text}</pre>
    </div>
  );
}

function timeText(ms: number | null): string {
  return ms === null ? "none" : timeOfDay(ms);
}

const MAX_RAW_BYTES = 256;

function render(value: Uint8Array, framing: Framing): string {
  const decoded = decodeRecord(value, framing);
  if (decoded.ok) {
    return prettyMessage(decoded.message);
  }
  const shown = [...value.subarray(0, MAX_RAW_BYTES)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return value.length > MAX_RAW_BYTES ? `${shown} …` : shown;
}
