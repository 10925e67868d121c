// What is drawn of the numbers.
import type { Curves } from "../live/curves";
import { t } from "../words";
import type { Axis } from "./plot";

export type X = "step" | "epoch" | "tokens" | "time";
type Numbers = readonly (number | null)[];

// An exponential mean that begins without a bias towards zero (as in Adam). Gaps and what is not finite are passed over.
export function smooth(values: Numbers, weight: number): (number | null)[] {
  let [mean, total] = [0, 0];
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
}

// Values that belong to only some of the steps, such as evaluations, as a column beside all of `steps`. A step that was
// thinned away gets the next one that is there.
export function alongside(steps: Numbers, at: readonly number[], values: readonly number[]): (number | null)[] {
  const column: (number | null)[] = steps.map(() => null);
  at.forEach((step, index) => {
    const place = indexOf(steps, step);
    if (place >= 0) column[place] = values[index] ?? null;
  });
  return column;
}

// The first place whose step is not before `step`, or the last one; -1 where there is none.
export function indexOf(steps: Numbers, step: number): number {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle]! < step) low = middle + 1;
    else high = middle;
  }
  return steps.length ? low : -1;
}

// How an x is shown.
export function axisOf(x: X): Axis {
  return { label: t(x), time: x === "time", whole: x === "step" || x === "tokens" };
}

export function xOf({ columns }: Curves, x: X): number[] {
  return columns[x] as number[];
}

// One axis for several jobs: every x that any of them has, and each job's values beside it.
export function aligned(curves: readonly { x: number[]; values: Numbers }[]): { x: number[]; columns: (number | null)[][] } {
  const x = [...new Set(curves.flatMap((each) => each.x))].sort((a, b) => a - b);
  const place = new Map(x.map((value, index) => [value, index]));
  const columns = curves.map((each) => {
    const column: (number | null)[] = x.map(() => null);
    each.x.forEach((value, index) => {
      column[place.get(value)!] = each.values[index] ?? null;
    });
    return column;
  });
  return { x, columns };
}
