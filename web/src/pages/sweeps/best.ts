import type { Sweep } from "../../types";

// The job that the API names as the best, from what the live table knows already: the least evaluation loss, or where
// none was evaluated the least loss, of those that run or have succeeded.
export function bestOf(runs: Sweep["jobs"]): string | null {
  const going = runs.filter((run) => run.status === "running" || run.status === "succeeded");
  const evaluated = going.filter((run) => run.eval_loss !== null);
  const ranked = evaluated.length ? evaluated : going.filter((run) => run.loss !== null);
  const loss = (run: Sweep["jobs"][number]): number => (evaluated.length ? run.eval_loss! : run.loss!);
  return ranked.toSorted((a, b) => loss(a) - loss(b))[0]?.id ?? null;
}
