// One row of the event list. Rows about the stream itself look different from records.

import { memo } from "react";
import type { LiveRow, RangeRow, RecordRow, ResetRow, Row } from "../model/rows";
import type { FindingInfo } from "../wire/frame";
import { count, placeText, timeOfDay, words } from "./format";
import { Id } from "./Id";

interface Props {
  row: Row;
  top: number;
  index: number;
  isSelected: boolean;
  select: (row: Row) => void;
}

export const EventRow = memo(function EventRow({ row, top, index, isSelected, select }: Props) {
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the grid around the rows handles the keys
    <div
      role="row"
      id={`row-${row.id}`}
      className={`row ${rowClass(row)}${isSelected ? " is-selected" : ""}`}
      style={{ transform: `translateY(${top}px)` }}
      aria-rowindex={index + 2}
      aria-selected={isSelected}
      tabIndex={-1}
      data-row={row.type}
      onClick={() => select(row)}
    >
      {row.type === "record" ? <RecordCells row={row} /> : <SystemCells row={row} />}
    </div>
  );
});

function rowClass(row: Row): string {
  if (row.type === "record") {
    return `row-record level-${row.failure === null ? (row.summary?.level ?? "normal") : "error"}`;
  }
  return row.type === "note" ? `row-note note-${row.level}` : `row-${row.type}`;
}

function RecordCells({ row }: { row: RecordRow }) {
  const { summary, failure } = row;
  const kind = summary === null ? "unreadable" : summary.kind;
  return (
    <>
      <Cell name="time">{row.timeMs === null ? "–" : timeOfDay(row.timeMs)}</Cell>
      <Cell name="tenant" title={summary?.tenant}>
        {summary?.tenant}
      </Cell>
      <Cell name="thread" title={summary?.thread}>
        <Id text={summary?.thread ?? ""} />
      </Cell>
      <Cell name="kind">
        <span className={`chip kind-${kind}`}>{summary === null ? kind : words(summary.name)}</span>
      </Cell>
      <Cell name="node" title={summary?.node}>
        {summary?.node}
      </Cell>
      <Cell name="detail" title={failure?.message ?? summary?.detail}>
        {row.findings.slice(0, 2).map((finding) => (
          <FindingBadge key={`${finding.kind}:${finding.eventIndex}:${finding.found}`} finding={finding} />
        ))}
        {row.findings.length > 2 ? <span className="badge">+{row.findings.length - 2}</span> : null}
        <span className="text">
          {failure === null ? summary?.detail : `${words(failure.kind)}: ${failure.message}`}
        </span>
      </Cell>
      <Cell name="sequence">{summary === null || summary.sequence === 0n ? "–" : summary.sequence.toString()}</Cell>
      <Cell name="position">
        {row.partition}:{row.offset.toString()}
      </Cell>
    </>
  );
}

function Cell(props: { name: string; title?: string | undefined; children?: React.ReactNode }) {
  return (
    <span role="gridcell" tabIndex={-1} className={`cell cell-${props.name}`} title={props.title}>
      {props.children}
    </span>
  );
}

function FindingBadge({ finding }: { finding: FindingInfo }) {
  return (
    <span className={`badge finding-${finding.kind}`} title={describeFinding(finding)}>
      {finding.kind === "gap" ? "sequence gap" : words(finding.kind)}
    </span>
  );
}

/** What the sequence check found, in a sentence. It speaks of the producer, never of the transport. */
export function describeFinding(finding: FindingInfo): string {
  const { expected, found } = finding;
  switch (finding.kind) {
    case "gap":
      return `The producer's sequence jumps: ${found} came where ${expected} was due, ${found - expected} missing.`;
    case "duplicate":
      return `Sequence ${found} came again; ${expected} was due.`;
    case "reorder":
      return `Sequence ${found} came late; ${expected} was due.`;
    case "producer_restart":
      return `The producer began anew at ${found}; ${expected} was due.`;
    default:
      return `Sequence ${found} came; ${expected} was due.`;
  }
}

function SystemCells({ row }: { row: Exclude<Row, RecordRow> }) {
  const { title, text, position } = describeSystemRow(row);
  return (
    <>
      <span role="gridcell" tabIndex={-1} className="cell cell-system-title">
        {title}
      </span>
      <span role="gridcell" tabIndex={-1} className="cell cell-system-text" title={text}>
        {text}
      </span>
      <span role="gridcell" tabIndex={-1} className="cell cell-position">
        {position}
      </span>
    </>
  );
}

/** The words of a row that is no record. */
export function describeSystemRow(row: Exclude<Row, RecordRow>): { title: string; text: string; position: string } {
  switch (row.type) {
    case "note":
      return { title: row.level === "info" ? "stream" : row.level, text: row.text, position: "" };
    case "history":
      return { title: "history", text: `From ${placeText(row.start)} on; the list begins anew`, position: "" };
    case "live":
      return { title: "live", text: describeLive(row), position: "" };
    case "reset":
      return describeReset(row);
    default:
      return describeRange(row);
  }
}

function describeReset(row: ResetRow): { title: string; text: string; position: string } {
  const before = row.before === null || row.before === row.nextOffset ? "" : ` instead of ${row.before}`;
  const what = row.newEpoch ? "offsets start again" : "the position was moved";
  const text = `Partition ${row.partition}: ${what} (${words(row.reason)}); goes on at ${row.nextOffset}${before}`;
  return { title: "reset", text, position: `${row.partition}:${row.nextOffset}` };
}

function describeLive({ records, isAfterHistory }: LiveRow): string {
  const number = `${count(records)} ${records === 1 ? "record" : "records"}`;
  return isAfterHistory ? `Live from here on, after ${number} of history` : `Live from here on; ${number} made up for`;
}

function describeRange(row: RangeRow): { title: string; text: string; position: string } {
  const size = row.next - row.first;
  const offsets = `${count(size)} ${size === 1n ? "offset" : "offsets"}`;
  const range = size === 1n ? `${row.first}` : `${row.first} to ${row.next - 1n}`;
  const what = row.type === "skip" ? "with nothing to show" : row.reason === "jumped" ? "passed over" : "lost";
  const text = `Partition ${row.partition}: ${offsets} ${what}, ${range} (${words(row.reason)})`;
  const title = row.type === "hole" && row.reason === "unexplained" ? "defect" : row.type === "skip" ? "skip" : "gap";
  return { title, text, position: `${row.partition}:${row.first}` };
}
