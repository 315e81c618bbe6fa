// Which rows of a long list are in sight. Pure.

export interface VisibleRange {
  from: number;
  /** Exclusive. */
  to: number;
}

/** The rows in a viewport, and `overscan` more on both sides. */
export function visibleRange(
  scrollTop: number,
  height: number,
  rowHeight: number,
  length: number,
  overscan: number,
): VisibleRange {
  const first = Math.floor(Math.max(0, scrollTop) / rowHeight);
  const count = Math.ceil(height / rowHeight) + 1;
  const to = Math.min(length, Math.max(first, 0) + count + overscan);
  // A list that has become shorter than the scroll position still shows its end.
  const from = Math.max(0, Math.min(first - overscan, to - count - overscan));
  return { from, to };
}
