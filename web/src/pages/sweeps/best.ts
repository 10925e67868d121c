import type { Sweep } from "../../types";

type Run = Sweep["jobs"][number];
export type Results = Pick<Run, "loss" | "eval_loss" | "reward_accuracy" | "reward_margin">;
export type Deciding = "reward_accuracy" | "eval_loss" | "loss";

const RESULTS = [
  { name: "loss", word: "loss" },
  { name: "eval_loss", word: "evalLoss" },
  { name: "reward_accuracy", word: "rewardAccuracy" },
  { name: "reward_margin", word: "rewardMargin" },
] as const;

// Only methods that compare answers have rewards.
export const shownResults = (runs: readonly Results[]) =>
  RESULTS.filter(({ name }) => !name.startsWith("reward") || runs.some((run) => run[name] !== null));

// What the best of some runs is chosen by: the first of these that any of them has. A loss of compared answers means
// something else with each method, so that rewards come first.
export function deciding(runs: readonly Results[]): Deciding {
  const known = (name: Deciding) => runs.some((run) => run[name] !== null);
  return known("reward_accuracy") ? "reward_accuracy" : known("eval_loss") ? "eval_loss" : "loss";
}

// The first run with the highest reward accuracy, and among equals the largest margin, or with the lowest loss.
export function leading<T extends Results>(runs: readonly T[]): T | undefined {
  const by = deciding(runs);
  const ranked = runs.filter((run) => run[by] !== null);
  if (by !== "reward_accuracy") return ranked.toSorted((a, b) => a[by]! - b[by]!)[0];
  const margin = (run: T) => run.reward_margin ?? 0;
  return ranked.toSorted((a, b) => b.reward_accuracy! - a.reward_accuracy! || margin(b) - margin(a))[0];
}

export const going = (runs: readonly Run[]): Run[] => runs.filter((run) => run.status === "running" || run.status === "succeeded");

// The job that the API names as the best, from what the live table knows already.
export const bestOf = (runs: readonly Run[]): string | null => leading(going(runs))?.id ?? null;
