// The ratings of a job as a dataset, and a new job that learns from them.
import { get, getText } from "../../api";
import { downloadRatings } from "../../calls";
import { type Recipe, read } from "../../recipe/values";
import type { Job } from "../../types";
import { replace } from "../new/draft";
import { upload } from "../new/datasets";

// Puts into the form of a new job: what was rated goes on from the adapter that was rated, with the same template.
export async function trainOn(jobId: string, method: "kto" | "dpo", signal: AbortSignal): Promise<void> {
  const [job, rows] = await Promise.all([get<Job>(`/jobs/${jobId}`, signal), getText(downloadRatings(jobId, method).path, signal)]);
  const { id } = await upload(new File([rows], `ratings-${method}.jsonl`), () => {}, signal);
  replace(learning(job, id, method));
}

export function learning({ id, recipe }: Pick<Job, "id" | "recipe">, dataset: string, method: "kto" | "dpo"): Recipe {
  const template = read(recipe, "dataset.chat_template");
  return {
    model: recipe.model,
    dataset: template ? { path: dataset, chat_template: template } : dataset,
    method: { type: method },
    adapter: { start_from: id },
  };
}
