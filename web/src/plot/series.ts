// What is drawn of the numbers.
import type { Curves } from "../live/curves";

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

export function xOf({ columns }: Curves, x: X): number[] {
  return columns[x] as number[];
}

// The steps of a part of the x axis, with one before it.
export function stepsOf(curves: Curves, x: X, { min, max }: { min: number; max: number }): { from: number | undefined; to: number | undefined } {
  const { step } = curves.columns;
  const xs = xOf(curves, x);
  return { from: step[Math.max(0, indexOf(xs, min) - 1)] ?? undefined, to: step[indexOf(xs, max)] ?? undefined };
}

// At most about that many points, with the least and the largest of each group of neighbours. A small plot has no room
// for more, and is drawn often.
export function thinned(x: readonly number[], values: Numbers, points: number): { x: number[]; values: (number | null)[] } {
  const size = Math.ceil((2 * x.length) / points);
  const kept: number[] = [];
  for (let first = 0; first < x.length; first += size) {
    const last = Math.min(first + size, x.length) - 1;
    let [least, most] = [first, first];
    for (let index = first; index <= last; index++) {
      const value = values[index] ?? null;
      if (value === null) continue;
      if (values[least] == null || value < values[least]!) least = index;
      if (values[most] == null || value >= values[most]!) most = index;
    }
    kept.push(Math.min(least, most));
    if (least !== most) kept.push(Math.max(least, most));
  }
  return { x: kept.map((index) => x[index]!), values: kept.map((index) => values[index]!) };
}

// One axis for several jobs: every x that any of them has, and each job's values beside it. Each x grows.
export function aligned(curves: readonly { x: readonly number[]; values: Numbers }[]): { x: number[]; columns: (number | null)[][] } {
  const sorted = Float64Array.from(curves.flatMap((each) => each.x)).sort();
  const x: number[] = [];
  for (const value of sorted) if (value !== x.at(-1)) x.push(value);
  const columns = curves.map((each) => {
    let at = 0;
    return x.map((value) => (each.x[at] === value ? (each.values[at++] ?? null) : null));
  });
  return { x, columns };
}
