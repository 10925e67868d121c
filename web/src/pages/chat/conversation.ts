// The conversation of this tab: one list of questions, and of each model its own answers. It outlives a reload.
import { computed, signal } from "@preact/signals";
import { ApiError } from "../../api";
import { RetryLater, streamed } from "./answers";
import { type AnswerRequest, type Extras, type Message, type ToolCall, withOpenTag } from "./messages";
import type { Choice } from "./models";
import { readSampling, readSystem } from "./sampling";

export type Trouble = { code: string; message: string };

export type Answer = {
  state: "waiting" | "writing" | "complete" | "stopped" | "failed";
  // The system prompt that it was asked with.
  system: string;
  text: string;
  calls: ToolCall[];
  finish: string | null;
  tokens: number | null;
  // Until the first token, and from there to the last one.
  firstSeconds: number | null;
  seconds: number;
  trouble: Trouble | null;
  // The reader's verdict as it is stored: on it alone, and that it is better than the others.
  rating: { id: string; label: boolean } | null;
  preferences: string[];
};

// `opening` is what a held-out example has before its question, and `reference` its own answer. `draft` is the question
// that is being written, and `address` what the address says of models and settings.
export type Conversation = {
  jobId: string;
  address: Record<string, string>;
  opening: Message[];
  extras: Extras;
  reference: { text: string; isBad: boolean } | null;
  draft: string;
  questions: string[];
  answers: Record<string, Answer[]>;
};

type Put = (change: Partial<Answer>) => void;

// Another name than in releases that stored another shape.
const NAME = "conversation";
const LONGEST_WAIT_SECONDS = 60;
const EMPTY: Conversation = { jobId: "", address: {}, opening: [], extras: {}, reference: null, draft: "", questions: [], answers: {} };
const NEW: Omit<Answer, "system"> = { state: "waiting", text: "", calls: [], finish: null, tokens: null, firstSeconds: null, seconds: 0, trouble: null, rating: null, preferences: [] };

export const conversation = signal<Conversation>(stored());
// False once the tab's storage has no room for it.
export const outlivesReload = signal(true);
const asking = signal<ReadonlyMap<string, AbortController>>(new Map());
export const busy = computed(() => asking.value.size > 0);

function stored(): Conversation {
  const text = sessionStorage.getItem(NAME);
  if (text === null) return EMPTY;
  const found = JSON.parse(text) as Conversation;
  // A reload ends what was under way.
  const ended = Object.entries(found.answers).map(([key, own]) => [key, own.filter(({ state }) => state !== "waiting" && state !== "writing")]);
  return { ...found, answers: Object.fromEntries(ended) };
}

export function store(): void {
  try {
    sessionStorage.setItem(NAME, JSON.stringify(conversation.value));
    outlivesReload.value = true;
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    // An older state than the one that is shown would be worse than none.
    sessionStorage.removeItem(NAME);
    outlivesReload.value = false;
  }
}

export function startOver(jobId: string, from: Partial<Conversation> = {}): void {
  stop();
  const { jobId: before, address } = conversation.value;
  conversation.value = { ...EMPTY, jobId, address: jobId === before ? address : {}, ...from };
  store();
}

export function update(change: Partial<Conversation>): void {
  conversation.value = { ...conversation.value, ...change };
  store();
}

export const stop = (): void => asking.value.forEach((each) => each.abort());

export const stopModel = (key: string): void => asking.value.get(key)?.abort();

export async function ask(question: string, choices: readonly Choice[]): Promise<void> {
  update({ draft: "", questions: [...conversation.value.questions, question] });
  await answerAll(choices);
}

export async function askAgain(choices: readonly Choice[]): Promise<void> {
  const { questions, answers } = conversation.value;
  const earlier = Object.entries(answers).map(([key, own]) => [key, own.slice(0, questions.length - 1)]);
  update({ answers: Object.fromEntries(earlier) });
  await answerAll(choices);
}

// Has each model answer every question that it has no answer to, one after the other.
export async function answerAll(choices: readonly Choice[]): Promise<void> {
  if (busy.value) return;
  const begun = new Map(choices.map(({ key }) => [key, new AbortController()]));
  asking.value = begun;
  await Promise.all(choices.map((choice) => answerEach(choice, begun.get(choice.key)!.signal)));
  asking.value = new Map();
  store();
}

async function answerEach({ key, model }: Choice, signal: AbortSignal): Promise<void> {
  for (let index = firstOpen(key); index < conversation.value.questions.length; index += 1) {
    beginAnswer(key, index);
    const request = { model, messages: messagesFor(key, index), ...conversation.value.extras, ...readSampling() };
    await answer(request, signal, (change) => changeAnswer(key, index, change));
    if (conversation.value.answers[key]?.[index]?.state !== "complete") return;
  }
}

// The first question that a model has no answer to.
export function firstOpen(key: string): number {
  const own = conversation.value.answers[key] ?? [];
  const failed = own.findIndex((each) => each.state === "failed");
  return failed < 0 ? own.length : failed;
}

// What a model is asked, or was: its own earlier answers, and the questions that all share.
export function messagesFor(key: string, index: number, question = conversation.value.questions[index]!): Message[] {
  const { opening, questions, answers } = conversation.value;
  const system = hasOwnSystem() ? "" : (answers[key]?.[index]?.system ?? readSystem());
  const earlier = questions.slice(0, index).flatMap((each, turn) => [...said(each), messageOf(answers[key]?.[turn])]);
  return [...(system ? [{ role: "system", content: system }] : []), ...opening, ...earlier, ...said(question)];
}

// A held-out example may begin with a system prompt, in place of the reader's.
export const hasOwnSystem = (): boolean => conversation.value.opening.some(({ role }) => role === "system");

// An example that ends with the result of a tool has no question of its own.
const said = (question: string): Message[] => (question ? [{ role: "user", content: question }] : []);

export function messageOf(answer: Answer | undefined): Message {
  const { text = "", calls = [] } = answer ?? {};
  return { role: "assistant", content: withOpenTag(text), ...(calls.length > 0 && { tool_calls: calls }) };
}

// A model's later answers were given to the answer that was here.
function beginAnswer(key: string, index: number): void {
  const { answers } = conversation.value;
  const begun = { ...NEW, system: readSystem() };
  conversation.value = { ...conversation.value, answers: { ...answers, [key]: [...(answers[key] ?? []).slice(0, index), begun] } };
}

// What arrives after the reader has started over has no place any more.
export function changeAnswer(key: string, index: number, change: Partial<Answer>): void {
  const { answers } = conversation.value;
  const own = answers[key] ?? [];
  if (index >= own.length) return;
  const changed = own.map((each, turn) => (turn === index ? { ...each, ...change } : each));
  conversation.value = { ...conversation.value, answers: { ...answers, [key]: changed } };
}

// A service without room is asked again after the time that it names.
async function answer(request: AnswerRequest, signal: AbortSignal, put: Put): Promise<void> {
  while (!signal.aborted) {
    try {
      await write(request, signal, put);
      return;
    } catch (error) {
      if (signal.aborted) break;
      const reason = error instanceof RetryLater ? error.reason : error;
      const trouble = troubleOf(reason);
      if (!(error instanceof RetryLater) || error.seconds > LONGEST_WAIT_SECONDS) return put({ state: "failed", trouble });
      put({ state: "waiting", text: "", calls: [], trouble });
      await pause(error.seconds * 1000, signal);
    }
  }
  put({ state: "stopped", trouble: null });
}

const troubleOf = (error: unknown): Trouble => ({ code: error instanceof ApiError ? error.code : "error", message: String((error as Error).message) });

async function write(request: AnswerRequest, signal: AbortSignal, put: Put): Promise<void> {
  const began = performance.now();
  let [text, first, last]: [string, number | null, number] = ["", null, began];
  const calls: ToolCall[] = [];
  for await (const piece of streamed(request, signal)) {
    if (piece.text !== undefined || piece.calls) {
      last = performance.now();
      first ??= last;
    }
    text += piece.text ?? "";
    calls.push(...(piece.calls ?? []));
    const times = { firstSeconds: first === null ? null : (first - began) / 1000, seconds: first === null ? 0 : (last - first) / 1000 };
    put({ state: "writing", trouble: null, text, calls: [...calls], ...times, ...(piece.finish && { finish: piece.finish }), ...(piece.tokens !== undefined && { tokens: piece.tokens }) });
  }
  put({ state: "complete", trouble: null });
}

const pause = (milliseconds: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
