// The curves of one job: what there is, thinned by the server, and then each new step as it comes.
import { get } from "../api";
import type { JobEvent, Metrics } from "../types";
import { listen } from "./stream";

export const SHOWN = ["loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes", "loss_scale"] as const;
const X = ["step", "epoch", "tokens", "time"] as const;
const POINTS = 4000;
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

export async function readCurves(jobId: string, from?: number, to?: number, signal?: AbortSignal): Promise<Curves> {
  const query = new URLSearchParams({ columns: SHOWN.join(","), points: String(POINTS) });
  if (from !== undefined && to !== undefined) {
    query.set("from_step", String(Math.max(0, Math.floor(from))));
    query.set("to_step", String(Math.max(1, Math.ceil(to))));
  }
  const found = await get<Metrics>(`/jobs/${jobId}/metrics?${query}`, signal);
  return { columns: found.columns as Curves["columns"], evaluations: found.evaluations };
}

// Adds to `curves` what comes, and says so to `heard`: several steps at once where several have come.
export function follow(jobId: string, curves: Curves, heard: (news: News) => void): () => void {
  let ended = false;
  let pending = nothing();
  let frame: number | undefined;

  function receive(type: string, data: unknown): void {
    const { time, ...fields } = data as { time: number } & Record<string, unknown>;
    if (type === "metric") add(curves, { time, ...fields });
    else if (type === "evaluation") addEvaluation(curves, fields);
    if (type === "status") ended = ENDED.has(String(fields.status));
    pending.stepped ||= type === "metric" || type === "evaluation";
    pending.changed ||= type !== "metric";
    if (type === "metric") pending.last = fields;
    // The job itself says where it waits.
    if (type !== "metric" && type !== "queue") pending.events.push({ id: "", type, time, data: fields });
    frame ??= setTimeout(() => {
      frame = undefined;
      heard(pending);
      pending = nothing();
    }, 250);
  }

  const start = `0.${curves.columns.step.at(-1) ?? 0}`;
  const stop = listen((last) => `/jobs/${jobId}/events?after=${last || start}`, EVENTS, receive, () => ended);
  return () => {
    clearTimeout(frame);
    stop();
  };
}

const nothing = (): News => ({ events: [], stepped: false, changed: false, last: null });

function add({ columns }: Curves, metric: Record<string, unknown>): void {
  const step = metric.step as number;
  // A job that is retried from the start repeats its steps.
  if (step <= (columns.step.at(-1) ?? 0)) return;
  const before = columns.tokens.at(-1) ?? 0;
  for (const name of [...X, ...SHOWN]) {
    if (name === "tokens") columns.tokens.push(before + (metric.tokens as number));
    else columns[name].push((metric[name] as number | null) ?? null);
  }
}

function addEvaluation({ evaluations }: Curves, fields: Record<string, unknown>): void {
  const at = evaluations.step.indexOf(fields.step as number);
  if (at >= 0) return;
  evaluations.step.push(fields.step as number);
  evaluations.eval_loss.push(fields.eval_loss as number);
}
