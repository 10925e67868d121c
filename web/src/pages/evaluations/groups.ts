// Evaluations whose scores can be compared: the same bytes, read alike, with the same settings.
import type { Evaluation, Score } from "./types";

export type Group = { key: string; of: Evaluation[] };

// Those with evaluations of most jobs first; of each job and step the newest, as the lists come newest first.
export function comparable(lists: readonly (readonly Evaluation[])[]): Group[] {
  const groups = new Map<string, Evaluation[]>();
  for (const each of lists.flat()) {
    if (each.scores === null) continue;
    const { sha256, format, columns } = each.dataset;
    const key = JSON.stringify([sha256, format, columns, Object.entries(each.settings).sort()]);
    const group = groups.get(key) ?? [];
    if (!group.some(({ job_id, checkpoint }) => job_id === each.job_id && checkpoint === each.checkpoint)) group.push(each);
    groups.set(key, group);
  }
  const jobs = ({ of }: Group): number => new Set(of.map(({ job_id }) => job_id)).size;
  return [...groups].map(([key, of]) => ({ key, of })).filter((group) => jobs(group) > 1).sort((a, b) => jobs(b) - jobs(a));
}

// The lowest loss, or the highest of another score; none where all are equal.
export function bestOf(score: Score, values: readonly number[]): number | null {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (least === most) return null;
  return score === "loss" ? least : most;
}
