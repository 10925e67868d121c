// Which jobs the filters of the address leave, and in which order.
import type { Summary } from "../types";

const VALUES = {
  status: (job: Summary) => job.status,
  name: (job: Summary) => job.name ?? job.id,
  model: (job: Summary) => job.model,
  progress: (job: Summary) => job.progress ?? -1,
  loss: (job: Summary) => job.loss ?? Infinity,
  owner: (job: Summary) => job.owner,
  created: (job: Summary) => job.created_at,
};

export type Order = keyof typeof VALUES;

export function matching(jobs: readonly Summary[], query: URLSearchParams): Summary[] {
  const words = (query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const status = query.get("status");
  const found = jobs.filter((job) => {
    if (status && job.status !== status) return false;
    if (words.length === 0) return true;
    const text = `${job.name ?? ""} ${job.id} ${job.model} ${job.dataset} ${job.owner}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const by = query.get("sort") ?? "created";
  const value = VALUES[by in VALUES ? (by as Order) : "created"];
  const sign = query.get("order") === "ascending" ? 1 : -1;
  return found.sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    return left < right ? -sign : left > right ? sign : 0;
  });
}
