// The recipe that is being written, as the JSON that will be posted. It outlives a reload of this tab.
import { computed, effect, signal } from "@preact/signals";
import { post, randomId } from "../../api";
import type { Form } from "../../recipe/schema";
import { type Recipe, compact } from "../../recipe/values";
import type { Job } from "../../types";

const NAME = "newJob";
const EMPTY = "{}";

export const text = signal(sessionStorage.getItem(NAME) ?? EMPTY);
effect(() => sessionStorage.setItem(NAME, text.value));

// Null while the text is not a JSON object.
export const recipe = computed<Recipe | null>(() => {
  try {
    const value: unknown = JSON.parse(text.value);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Recipe) : null;
  } catch {
    return null;
  }
});

export function replace(next: Recipe): void {
  text.value = JSON.stringify(next, null, 2);
}

// Changes the recipe, unless its text is broken: that stays as the reader has typed it.
export function change(form: Form, by: (recipe: Recipe) => Recipe): void {
  if (recipe.value !== null) replace(compact(by(recipe.value), form));
}

export function startOver(): void {
  text.value = EMPTY;
}

let sent = { about: "", key: "" };

// The same recipe, sent again after a lost response, makes no second job.
export async function submit(force: boolean): Promise<Job> {
  const path = force ? "/jobs?force=true" : "/jobs";
  const about = path + text.value;
  if (sent.about !== about) sent = { about, key: randomId() };
  const job = await post<Job>(path, text.value, { key: sent.key });
  sent = { about: "", key: "" };
  startOver();
  return job;
}
