// The live list. Only the rows in sight are in the document; the list keeps its place while older rows are forgotten.

import { type KeyboardEvent, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import type { RowSource } from "../model/filter";
import type { Row } from "../model/rows";
import { EventRow } from "./EventRow";
import { visibleRange } from "./window";

export const ROW_HEIGHT = 26;
const OVERSCAN = 12;
const FOLLOW_SLACK_PX = ROW_HEIGHT;

interface Props {
  rows: RowSource;
  version: number;
  emptyText: string;
  selected: Row | null;
  select: (row: Row | null) => void;
}

const COLUMNS = [
  ["time", "Time"],
  ["tenant", "Tenant"],
  ["thread", "Thread"],
  ["kind", "Kind"],
  ["node", "Node"],
  ["detail", "Findings and detail"],
  ["sequence", "Seq"],
  ["position", "P:offset"],
] as const;

export function EventList({ rows, version, emptyText, selected, select }: Props) {
  const viewport = useRef<HTMLDivElement>(null);
  const [scroll, setScroll] = useState({ top: 0, height: 600 });
  const [isFollowing, setIsFollowing] = useState(true);
  const gone = useRef({ source: rows, count: rows.gone });

  useSteadyPlace(viewport, rows, version, isFollowing, gone);
  useViewportSize(viewport, setScroll);

  const onScroll = useCallback(() => {
    const element = viewport.current;
    if (element !== null) {
      setScroll({ top: element.scrollTop, height: element.clientHeight });
      const below = element.scrollHeight - element.clientHeight - element.scrollTop;
      setIsFollowing(below <= FOLLOW_SLACK_PX);
    }
  }, []);

  // A row that somebody reads must not run away.
  const choose = useCallback(
    (row: Row) => {
      setIsFollowing(false);
      select(row);
    },
    [select],
  );

  const moveTo = (index: number) => {
    const row = rows.at(index);
    const element = viewport.current;
    if (row !== undefined && element !== null) {
      choose(row);
      const top = index * ROW_HEIGHT;
      if (top < element.scrollTop) {
        element.scrollTop = top;
      } else if (top + 2 * ROW_HEIGHT > element.scrollTop + element.clientHeight) {
        // The head covers the height of one row.
        element.scrollTop = top + 2 * ROW_HEIGHT - element.clientHeight;
      }
    }
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      select(null);
      return;
    }
    const page = Math.max(1, Math.floor(scroll.height / ROW_HEIGHT) - 1);
    const target = nextIndex(event.key, indexOf(rows, selected), rows.length, page);
    if (target !== null) {
      event.preventDefault();
      moveTo(target);
    }
  };

  const { from, to } = visibleRange(scroll.top, scroll.height, ROW_HEIGHT, rows.length, OVERSCAN);
  const shown = [];
  for (let index = from; index < to; index += 1) {
    const row = rows.at(index);
    if (row !== undefined) {
      shown.push(
        <EventRow
          key={row.id}
          row={row}
          index={index}
          top={index * ROW_HEIGHT}
          isSelected={row.id === selected?.id}
          select={choose}
        />,
      );
    }
  }
  return (
    <div
      className="grid"
      role="grid"
      aria-label="Events"
      aria-rowcount={rows.length + 1}
      aria-colcount={COLUMNS.length}
      aria-activedescendant={selected === null ? undefined : `row-${selected.id}`}
      tabIndex={0}
      onKeyDown={onKeyDown}
    >
      <div className="viewport" role="rowgroup" ref={viewport} onScroll={onScroll}>
        <div role="row" className="row row-head" tabIndex={-1}>
          {COLUMNS.map(([name, label]) => (
            <span key={name} role="columnheader" tabIndex={-1} className={`cell cell-${name}`}>
              {label}
            </span>
          ))}
        </div>
        <div className="canvas" style={{ height: rows.length * ROW_HEIGHT }}>
          {shown}
        </div>
        {rows.length === 0 ? <p className="empty empty-list">{emptyText}</p> : null}
      </div>
      {isFollowing || rows.length === 0 ? null : (
        <button type="button" className="to-newest" onClick={() => setIsFollowing(true)}>
          Newest ↓
        </button>
      )}
    </div>
  );
}

/** Follows the end, or holds the rows in sight where they are when older ones are forgotten. */
function useSteadyPlace(
  viewport: React.RefObject<HTMLDivElement | null>,
  rows: RowSource,
  version: number,
  isFollowing: boolean,
  gone: React.RefObject<{ source: RowSource; count: number }>,
): void {
  // biome-ignore lint/correctness/useExhaustiveDependencies: `version` stands for the content of `rows`
  useLayoutEffect(() => {
    const element = viewport.current;
    const before = gone.current;
    gone.current = { source: rows, count: rows.gone };
    if (element === null) {
      return;
    }
    if (isFollowing) {
      element.scrollTop = element.scrollHeight;
    } else if (before.source === rows && rows.gone > before.count) {
      element.scrollTop -= (rows.gone - before.count) * ROW_HEIGHT;
    }
  }, [rows, version, isFollowing]);
}

function useViewportSize(
  viewport: React.RefObject<HTMLDivElement | null>,
  setScroll: (scroll: { top: number; height: number }) => void,
): void {
  useEffect(() => {
    const element = viewport.current;
    if (element === null) {
      return;
    }
    const observer = new ResizeObserver(() => setScroll({ top: element.scrollTop, height: element.clientHeight }));
    observer.observe(element);
    return () => observer.disconnect();
  }, [viewport, setScroll]);
}

/** Where the row lies now; -1 when it is gone. Row ids grow with the index. */
function indexOf(rows: RowSource, row: Row | null): number {
  let low = 0;
  let high = rows.length - 1;
  while (row !== null && low <= high) {
    const middle = (low + high) >> 1;
    const id = rows.at(middle)?.id ?? 0;
    if (id === row.id) {
      return middle;
    }
    if (id < row.id) {
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  return -1;
}

/** The index that a key leads to; null for keys that do not move. */
export function nextIndex(key: string, current: number, length: number, page: number): number | null {
  if (length === 0) {
    return null;
  }
  const last = length - 1;
  const at = current < 0 ? last : current;
  switch (key) {
    case "ArrowDown":
      return current < 0 ? last : Math.min(last, at + 1);
    case "ArrowUp":
      return current < 0 ? last : Math.max(0, at - 1);
    case "PageDown":
      return Math.min(last, at + page);
    case "PageUp":
      return Math.max(0, at - page);
    case "Home":
      return 0;
    case "End":
      return last;
    default:
      return null;
  }
}
