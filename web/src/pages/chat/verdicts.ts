// What the reader thinks of answers, stored at the job as rows of a dataset.
import { signal } from "@preact/signals";
import { ApiError, send } from "../../api";
import * as calls from "../../calls";
import { type Answer, changeAnswer, conversation, messageOf, messagesFor, store } from "./conversation";
import type { Extras, Message } from "./messages";
import type { Choice } from "./models";

export type Rating = Extras & {
  id: string;
  messages: Message[];
  answer: Message;
  model: string;
  label: boolean | null;
  rejected: Message | null;
  rejected_model: string | null;
  created_at: string;
};

// Counted up when a rating is stored or deleted.
export const changes = signal(0);

export async function deleteRating(jobId: string, id: string): Promise<void> {
  await send(calls.deleteRating(jobId, id)).catch((error: unknown) => {
    // Somebody else has deleted it.
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  });
  for (const [key, own] of Object.entries(conversation.value.answers)) {
    own.forEach(({ rating, preferences }, turn) => {
      if (rating?.id === id) changeAnswer(key, turn, { rating: null });
      if (preferences.includes(id)) changeAnswer(key, turn, { preferences: preferences.filter((each) => each !== id) });
    });
  }
  done();
}

// The same verdict again takes it back.
export async function rate(jobId: string, turn: number, choice: Choice, label: boolean): Promise<void> {
  const { key } = choice;
  const { rating } = answerAt(key, turn);
  const verdict = ratingCall(jobId, turn, choice, label);
  if (rating) await deleteRating(jobId, rating.id);
  if (rating?.label === label) return;
  const { id } = await send<Rating>(verdict);
  changeAnswer(key, turn, { rating: { id, label } });
  done();
}

export const ratingCall = (jobId: string, turn: number, { key, model }: Choice, label: boolean): calls.Call => calls.rateAnswer(jobId, { ...given(key, turn), model, label });

// A pair for each of the others.
export const preferenceCalls = (jobId: string, turn: number, better: Choice, choices: readonly Choice[]): calls.Call[] =>
  comparable(turn, better, choices).map((worse) => {
    const rejected = { rejected: messageOf(answerAt(worse.key, turn)), rejected_model: worse.model };
    return calls.rateAnswer(jobId, { ...given(better.key, turn), model: better.model, ...rejected });
  });

// The same verdict again takes them back, and one of another answer replaces them.
export async function prefer(jobId: string, turn: number, better: Choice, choices: readonly Choice[]): Promise<void> {
  const wasBetter = answerAt(better.key, turn).preferences.length > 0;
  const verdicts = wasBetter ? [] : preferenceCalls(jobId, turn, better, choices);
  for (const { key } of choices) {
    for (const id of conversation.value.answers[key]?.[turn]?.preferences ?? []) await deleteRating(jobId, id);
  }
  const preferences: string[] = [];
  for (const verdict of verdicts) {
    preferences.push((await send<Rating>(verdict)).id);
    changeAnswer(better.key, turn, { preferences: [...preferences] });
  }
  done();
}

// Two answers are a pair only where all that was said before them is the same, and they differ.
export function comparable(turn: number, to: Choice, choices: readonly Choice[]): Choice[] {
  const own = conversation.value.answers[to.key]?.[turn];
  if (!isRateable(own) || !isWhole(own)) return [];
  const prompt = JSON.stringify(messagesFor(to.key, turn));
  const said = JSON.stringify(messageOf(own));
  return choices.filter(({ key }) => {
    const other = conversation.value.answers[key]?.[turn];
    return key !== to.key && isRateable(other) && JSON.stringify(messagesFor(key, turn)) === prompt && JSON.stringify(messageOf(other)) !== said;
  });
}

export const isRateable = (answer: Answer | undefined): answer is Answer =>
  answer !== undefined && (answer.state === "complete" || answer.state === "stopped") && (answer.text.trim() !== "" || answer.calls.length > 0);

// A row of a dataset ends where its answer does. So one that was cut off or stopped can only be learned as a bad one.
export const isWhole = ({ state, finish }: Answer): boolean => state === "complete" && finish !== "length";

const answerAt = (key: string, turn: number): Answer => conversation.value.answers[key]![turn]!;

const given = (key: string, turn: number) => ({ messages: messagesFor(key, turn), ...conversation.value.extras, answer: messageOf(answerAt(key, turn)) });

function done(): void {
  changes.value += 1;
  store();
}
