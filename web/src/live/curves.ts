// The curves of one job: what there is, thinned by the server, and then each new step as it comes.
import { get } from "../api";
import type { JobEvent, Metrics } from "../types";
import { listen } from "./stream";

export const SHOWN = [
  "loss",
  "token_accuracy",
  "reward_accuracy",
  "reward_margin",
  "learning_rate",
  "grad_norm",
  "tokens_per_second",
  "memory_bytes",
  "loss_scale",
  "router_loss",
] as const;
const X = ["step", "epoch", "tokens", "time"] as const;
// Each column keeps its spikes, so that so many points become several times as many steps.
const POINTS = 800;
const POINTS_OF_LOSS = 2000;
// With more steps than that the server thins them again.
const MOST_STEPS = 12_000;
// News are shown that often at most.
const NEWS_MS = 500;
const EVENTS = ["status", "started", "phase", "metric", "evaluation", "sample", "checkpoint", "log", "retry", "done", "queue"];
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export type Column = (typeof SHOWN)[number] | (typeof X)[number];
export type Curves = {
  columns: Record<Column, (number | null)[]>;
  evaluations: { step: number[]; eval_loss: number[] };
};
export type News = {
  events: JobEvent[];
  stepped: boolean;
  // Something other than a step: the job may have another status, or another place in the queue.
  changed: boolean;
  last: Record<string, unknown> | null;
};

type Range = { from?: number | undefined; to?: number | undefined; since?: number | undefined };

export const readCurves = (jobId: string, range: Range = {}, signal?: AbortSignal): Promise<Curves> => read(jobId, SHOWN, POINTS, range, signal);

export const readLosses = (jobId: string, range: Range = {}, signal?: AbortSignal): Promise<Curves> => read(jobId, ["loss"], POINTS_OF_LOSS, range, signal);

async function read(jobId: string, columns: readonly Column[], points: number, { from, to, since }: Range, signal?: AbortSignal): Promise<Curves> {
  const query = new URLSearchParams({ columns: columns.join(",") });
  if (since !== undefined) query.set("since_step", String(since));
  else query.set("points", String(points));
  if (from !== undefined) query.set("from_step", String(Math.max(0, Math.floor(from))));
  if (to !== undefined) query.set("to_step", String(Math.max(1, Math.ceil(to))));
  const found = await get<Metrics>(`/jobs/${jobId}/metrics?${query}`, signal);
  return { columns: found.columns as Curves["columns"], evaluations: found.evaluations };
}

// Adds to `curves` what comes, and says so to `heard`: several steps at once where several have come.
export function follow(jobId: string, curves: Curves, heard: (news: News) => void): () => void {
  let ended = false;
  let pending = nothing();
  let timer: number | undefined;
  let thinning = false;

  function receive(type: string, data: unknown): void {
    const { time, ...fields } = data as { time: number } & Record<string, unknown>;
    if (type === "metric") add(curves, { time, ...fields });
    else if (type === "evaluation") addEvaluation(curves, fields);
    else if (type === "started") startAgain(curves, time, fields.resumed_step as number);
    if (type === "status") ended = ENDED.has(String(fields.status));
    pending.stepped ||= type === "metric" || type === "evaluation";
    pending.changed ||= type !== "metric";
    if (type === "metric") pending.last = fields;
    // The job itself says where it waits.
    if (type !== "metric" && type !== "queue") pending.events.push({ id: "", type, time, data: fields });
    timer ??= setTimeout(() => {
      timer = undefined;
      heard(pending);
      pending = nothing();
    }, NEWS_MS);
    if (curves.columns.step.length > MOST_STEPS && !thinning) void thin();
  }

  // Whoever watches a run for days has no more steps than who opens it now.
  async function thin(): Promise<void> {
    thinning = true;
    const found = await readCurves(jobId).catch(() => undefined);
    if (found) {
      append(found, curves);
      Object.assign(curves, found);
    }
    thinning = false;
  }

  const start = `0.${curves.columns.step.at(-1) ?? 0}`;
  const stop = listen((last) => `/jobs/${jobId}/events?after=${last || start}`, EVENTS, receive, () => ended);
  return () => {
    clearTimeout(timer);
    stop();
  };
}

const nothing = (): News => ({ events: [], stepped: false, changed: false, last: null });

function add({ columns }: Curves, metric: Record<string, unknown>): void {
  const step = metric.step as number;
  if (step <= (columns.step.at(-1) ?? 0)) return;
  const before = columns.tokens.at(-1) ?? 0;
  for (const name of [...X, ...SHOWN]) {
    if (name === "tokens") columns.tokens.push(before + (metric.tokens as number));
    else columns[name].push((metric[name] as number | null) ?? null);
  }
}

// Adds the steps of `more` after the last one of `curves`, and returns whether there were any.
export function append(curves: Curves, more: Curves): boolean {
  const { columns } = curves;
  const last = columns.step.at(-1) ?? 0;
  const first = more.columns.step.findIndex((step) => step! > last);
  if (first < 0) return false;
  for (const name of Object.keys(columns) as Column[]) columns[name].push(...more.columns[name].slice(first));
  return true;
}

// An attempt repeats the steps after the training checkpoint that it continues from. Of earlier attempts the curves have
// what came of them already.
function startAgain({ columns }: Curves, time: number, resumed: number): void {
  if (time <= (columns.time.at(-1) ?? 0)) return;
  const kept = columns.step.findLastIndex((step) => step! <= resumed) + 1;
  for (const name of Object.keys(columns) as Column[]) columns[name].length = kept;
}

function addEvaluation({ evaluations }: Curves, fields: Record<string, unknown>): void {
  const at = evaluations.step.indexOf(fields.step as number);
  if (at >= 0) return;
  evaluations.step.push(fields.step as number);
  evaluations.eval_loss.push(fields.eval_loss as number);
}
