// All jobs that the reader may see, kept up to date by one stream. Only what changes travels. The stream has the newest
// ones and all that have not ended; the others are loaded on demand.
import { computed, signal } from "@preact/signals";
import { get } from "../api";
import type { Job, Summary } from "../types";
import { listen } from "./stream";

type News = { jobs: Summary[]; deleted?: string[]; reset: boolean };

const STREAMED = 1000;
const PAGE = 100;

const streamed = signal<readonly Summary[] | null>(null);
const loaded = signal<readonly Summary[]>([]);

export const jobs = computed(() => streamed.value && newestFirst([...loaded.value, ...streamed.value]));

// Whether there are older jobs than those that are loaded.
export const older = signal<{ there: boolean; loading: boolean; error?: unknown }>({ there: false, loading: false });

export function followJobs(): () => void {
  const known = new Map<string, Summary>();
  const stop = listen(
    () => "/jobs",
    ["jobs"],
    (_, data) => {
      const news = data as News;
      if (news.reset) known.clear();
      for (const job of news.jobs) known.set(job.id, job);
      for (const id of news.deleted ?? []) known.delete(id);
      if (news.deleted?.length) loaded.value = loaded.value.filter((job) => !news.deleted!.includes(job.id));
      streamed.value = [...known.values()];
      if (news.reset && loaded.value.length === 0) older.value = { there: known.size >= STREAMED, loading: false };
    },
  );
  return () => {
    stop();
    loaded.value = [];
  };
}

export async function loadOlder(): Promise<void> {
  const last = loaded.value.at(-1) ?? newestFirst(streamed.value ?? [])[STREAMED - 1];
  if (!last || older.value.loading) return;
  older.value = { there: true, loading: true };
  try {
    const page = await get<{ data: Job[]; has_more: boolean }>(`/jobs?limit=${PAGE}&after=${last.id}`);
    loaded.value = [...loaded.value, ...page.data.map(summary)];
    older.value = { there: page.has_more, loading: false };
  } catch (error) {
    older.value = { there: true, loading: false, error };
  }
}

// As the stream has it where both have a job: a later one replaces an earlier one of the same id.
function newestFirst(found: readonly Summary[]): Summary[] {
  const unique = new Map(found.map((job) => [job.id, job]));
  return [...unique.values()].sort((a, b) => compare(b.created_at, a.created_at) || compare(b.id, a.id));
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function summary(job: Job): Summary {
  const { recipe, progress } = job;
  return {
    ...job,
    model: recipe.model,
    dataset: recipe.dataset.filename ?? recipe.dataset.path,
    step: progress?.step ?? null,
    total_steps: progress?.total_steps ?? null,
    progress: progress?.progress ?? null,
    eta_seconds: progress?.eta_seconds ?? null,
    loss: progress?.loss ?? null,
    eval_loss: progress?.eval_loss ?? null,
    reward_accuracy: progress?.reward_accuracy ?? null,
    reward_margin: progress?.reward_margin ?? null,
    losses: [],
    failure_code: job.failure?.code ?? null,
    failure_message: job.failure?.message ?? null,
  };
}
