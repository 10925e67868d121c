// All jobs that the reader may see, kept up to date by one stream. Only what changes travels.
import { signal } from "@preact/signals";
import type { Summary } from "../types";
import { listen } from "./stream";

type News = { jobs: Summary[]; deleted?: string[]; reset: boolean };

export const jobs = signal<Summary[] | null>(null);

export function followJobs(): () => void {
  const known = new Map<string, Summary>();
  return listen(
    () => "/jobs",
    ["jobs"],
    (_, data) => {
      const news = data as News;
      if (news.reset) known.clear();
      for (const job of news.jobs) known.set(job.id, job);
      for (const id of news.deleted ?? []) known.delete(id);
      jobs.value = [...known.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
    },
  );
}
