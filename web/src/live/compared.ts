// The losses of several jobs. While any of them goes on, its new steps are read, one job after the other: streams would
// take all of the connections that a browser has to one API.
import { useEffect, useReducer, useRef, useState } from "preact/hooks";
import { get } from "../api";
import type { Job } from "../types";
import { type Curves, append, readLosses } from "./curves";
import { connected } from "./stream";

export type Compared = { job: Job; curves: Curves };

const PAUSE_MS = 3000;
const MOST_STEPS = 10_000;
const ENDED = ["succeeded", "failed", "cancelled"];

export function useCompared(ids: readonly string[]): { data?: Compared[]; round: number; error?: unknown; reload: () => void } {
  const [data, setData] = useState<Compared[]>();
  const [error, setError] = useState<unknown>();
  const [round, draw] = useReducer<number, void>((count) => count + 1, 0);
  const [again, reload] = useReducer<number, void>((count) => count + 1, 0);
  const timer = useRef<number>(undefined);
  useEffect(() => {
    const abort = new AbortController();
    async function follow(found: Compared[]): Promise<void> {
      let changed = false;
      for (const each of document.hidden ? [] : found) changed = (await advance(each, abort.signal)) || changed;
      if (changed) draw();
    }
    function wait(found: Compared[]): void {
      if (abort.signal.aborted || found.every(({ job }) => ENDED.includes(job.status))) return;
      timer.current = setTimeout(() => {
        follow(found)
          .then(
            () => (connected.value = true),
            () => (connected.value = abort.signal.aborted),
          )
          .finally(() => wait(found));
      }, PAUSE_MS);
    }
    Promise.all(ids.map((id) => read(id, abort.signal))).then(
      (found) => {
        if (abort.signal.aborted) return;
        setData(found);
        setError(undefined);
        wait(found);
      },
      (problem: unknown) => abort.signal.aborted || setError(problem),
    );
    return () => {
      abort.abort();
      clearTimeout(timer.current);
    };
  }, [ids.join(), again]);
  return { ...(data && { data }), round, error, reload: () => reload() };
}

async function read(id: string, signal: AbortSignal): Promise<Compared> {
  const [job, curves] = await Promise.all([get<Job>(`/jobs/${id}`, signal), readLosses(id, {}, signal)]);
  return { job, curves };
}

// Whether there is anything new. A job without new steps may have ended.
async function advance(compared: Compared, signal: AbortSignal): Promise<boolean> {
  const { job, curves } = compared;
  if (ENDED.includes(job.status)) return false;
  const more = await readLosses(job.id, { since: curves.columns.step.at(-1) ?? 0 }, signal);
  if (append(curves, more)) {
    if (curves.columns.step.length > MOST_STEPS) compared.curves = await readLosses(job.id, {}, signal);
    const evaluated = (more.evaluations.eval_loss.at(-1) ?? null) !== (job.progress?.eval_loss ?? null);
    // Only the job has the rewards of an evaluation.
    compared.job = evaluated || !job.progress ? await get<Job>(`/jobs/${job.id}`, signal) : { ...job, progress: { ...job.progress, loss: curves.columns.loss.at(-1)! } };
    return true;
  }
  compared.job = await get<Job>(`/jobs/${job.id}`, signal);
  return compared.job.status !== job.status;
}
