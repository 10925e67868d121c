// The models of a job that can be talked to: its base, what it has trained, its checkpoints, and what other jobs have
// trained on the same base.
import { get } from "../../api";

// `key` is what the address has: "base", "model", "step-20", or the id of another job.
export type Choice = { key: string; model: string; step: number | null; name: string | null };

export type Models = { jobId: string; name: string; ended: boolean; own: Choice[]; others: Choice[] };

type FineTuningJob = { id: string; model: string; fine_tuned_model: string | null; finished_at: number | null; recipe: { name: string | null } };
type Checkpoint = { step_number: number; fine_tuned_model_checkpoint: string };

export async function readModels(jobId: string, signal: AbortSignal): Promise<Models> {
  const path = `/v1/fine_tuning/jobs/${encodeURIComponent(jobId)}`;
  const [job, checkpoints, listed] = await Promise.all([
    get<FineTuningJob>(path, signal),
    get<{ data: Checkpoint[] }>(`${path}/checkpoints?limit=100`, signal),
    get<{ data: FineTuningJob[] }>("/v1/fine_tuning/jobs?limit=100", signal),
  ]);
  const saved = checkpoints.data.filter((each) => each.fine_tuned_model_checkpoint !== job.fine_tuned_model);
  const trained = job.fine_tuned_model === null ? [] : [{ key: "model", model: job.fine_tuned_model, step: null, name: null }];
  const steps = saved.map((each) => ({ key: `step-${each.step_number}`, model: each.fine_tuned_model_checkpoint, step: each.step_number, name: null }));
  const others = listed.data.flatMap(({ id, model, fine_tuned_model, recipe }) =>
    id === job.id || model !== job.model || fine_tuned_model === null ? [] : [{ key: id, model: fine_tuned_model, step: null, name: recipe.name ?? id }],
  );
  const base = { key: "base", model: job.model, step: null, name: job.model };
  return { jobId: job.id, name: job.recipe.name ?? job.id, ended: job.finished_at !== null, own: [base, ...trained, ...steps], others };
}

export const choicesOf = ({ own, others }: Models): Choice[] => [...own, ...others];

// Those that have answered and are no longer there, such as a deleted checkpoint.
export function goneOf(models: Models, answered: readonly string[]): Choice[] {
  const there = new Set(choicesOf(models).map(({ key }) => key));
  return answered.filter((key) => !there.has(key)).map((key) => ({ key, model: "", step: key.startsWith("step-") ? Number(key.slice(5)) : null, name: key }));
}

// Those that the address names; without any, the base and the newest of the job.
export function chosen(models: Models, named: string | null): Choice[] {
  if (named === null) return models.own.slice(0, 2);
  const all = choicesOf(models);
  return [...new Set(named.split(","))].flatMap((key) => all.find((each) => each.key === key) ?? []);
}
