// The part of the x axis that the reader looks at, in the address.
import { useEffect, useMemo, useState } from "preact/hooks";
import { route, setQuery } from "../route";
import type { Range } from "./plot";
import type { X } from "./series";

type Zoom<T> = { range: Range | null; detail: T | undefined; zoomed: (range: Range | null) => void };

// The whole of a curve is thinned. `read` gives more of a part of it, once `ready`.
export function useZoom<T>(x: X, ready: boolean, read: (range: Range) => Promise<T>): Zoom<T> {
  const given = route.value.query.get("zoom") ?? "";
  const range = useMemo(() => rangeOf(given), [given]);
  const [detail, setDetail] = useState<T>();
  useEffect(() => {
    let over = false;
    if (range === null) setDetail(undefined);
    // Where it cannot be read, what is there stays in sight.
    else if (ready) read(range).then((found) => over || setDetail(() => found), () => {});
    return () => {
      over = true;
    };
  }, [range, ready, x]);
  return { range, detail, zoomed: (chosen) => setQuery("zoom", chosen ? `${rounded(chosen.min)}:${rounded(chosen.max)}` : "") };
}

export function setX(x: string): void {
  setQuery("zoom", "");
  setQuery("x", x);
}

function rangeOf(text: string): Range | null {
  const [min, max] = text.split(":").map(Number);
  return min !== undefined && max !== undefined && min < max ? { min, max } : null;
}

const rounded = (value: number): number => Number(value.toPrecision(12));
