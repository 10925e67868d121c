import { useEffect, useReducer, useRef, useState } from "preact/hooks";
import { get } from "../../api";
import { duration, integer, loss, moment } from "../../format";
import { type Curves, follow, readCurves } from "../../live/curves";
import { Problem } from "../../parts/Problem";
import { Progress } from "../../parts/Progress";
import { Status } from "../../parts/Status";
import { href } from "../../route";
import type { Job, JobEvent } from "../../types";
import { type Word, t } from "../../words";
import { reasonOf } from "../../words/server";
import { Actions } from "./Actions";
import { Artifacts } from "./Artifacts";
import { CurvesTab } from "./CurvesTab";
import { Events } from "./Events";
import { Failure } from "./Failure";
import { LogTab } from "./LogTab";
import { RecipeTab } from "./RecipeTab";
import { Evaluations } from "./Evaluations";
import { Samples } from "./Samples";
import { Trackers } from "./Trackers";
import { UsageTab } from "./UsageTab";

const TABS = ["curves", "recipe", "events", "log", "samples", "artifacts", "usage"] as const satisfies readonly Word[];

export type Watched = { job: Job; curves: Curves; events: JobEvent[]; round: number };

export function JobPage({ id, tab }: { id: string; tab: string }) {
  const { watched, error, reload } = useJob(id);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!watched) return <p class="quiet">{t("loading")}</p>;
  const { job } = watched;
  return (
    <>
      <header class="job">
        <div class="row">
          <h1>{job.name ?? job.id}</h1>
          <Status status={job.queue ? "queued" : job.status} requested={job.requested_action} />
          <Actions job={job} done={reload} />
        </div>
        <Facts job={job} />
        {job.queue && <p>{reasonOf(job.queue)}</p>}
        {job.failure && <Failure failure={job.failure} />}
        <Trackers job={job} />
      </header>
      <nav class="tabs" aria-label={job.name ?? job.id}>
        {TABS.map((each) => (
          <a href={href(["jobs", id, each])} aria-current={each === tab ? "page" : undefined}>
            {t(each)}
          </a>
        ))}
      </nav>
      {tab === "curves" && <CurvesTab id={id} watched={watched} />}
      {tab === "recipe" && <RecipeTab job={job} />}
      {tab === "events" && <Events events={watched.events} />}
      {tab === "log" && <LogTab job={job} events={watched.events} />}
      {tab === "samples" && <Samples id={id} events={watched.events} />}
      {tab === "samples" && <Evaluations job={job} />}
      {tab === "artifacts" && <Artifacts job={job} events={watched.events} />}
      {tab === "usage" && <UsageTab job={job} />}
    </>
  );
}

function Facts({ job }: { job: Job }) {
  const { progress } = job;
  const facts: [Word, preact.ComponentChildren][] = [
    ["model", job.recipe.model],
    ["owner", job.owner],
    ["created", moment(job.created_at)],
    ["progress", progress ? <Progress done={progress.progress} left={job.status === "running" ? progress.eta_seconds : null} /> : "–"],
    ["step", progress ? `${integer(progress.step)}${progress.total_steps ? ` / ${integer(progress.total_steps)}` : ""}` : "–"],
    ["loss", loss(progress?.loss)],
    ["evalLoss", loss(progress?.eval_loss)],
    ["device", job.devices.map((each) => `${each.worker}:${each.number}`).join(", ") || "–"],
    ["time", job.started_at ? duration((Date.parse(job.finished_at ?? "") || Date.now()) / 1000 - Date.parse(job.started_at) / 1000) : "–"],
  ];
  return (
    <dl class="facts">
      {facts.map(([word, value]) => (
        <div>
          <dt>{t(word)}</dt>
          <dd class="number">{value}</dd>
        </div>
      ))}
    </dl>
  );
}

// The job, its curves and its events, from one stream: the job is read again when an event says that it has changed.
function useJob(id: string): { watched?: Watched; error?: unknown; reload: () => void } {
  const [error, setError] = useState<unknown>();
  const [round, reload] = useReducer<number, void>((count) => count + 1, 0);
  const [, draw] = useReducer<number, void>((count) => count + 1, 0);
  const watched = useRef<Watched>(undefined);
  useEffect(() => {
    const abort = new AbortController();
    let stop = () => {};
    const readJob = () => get<Job>(`/jobs/${id}`, abort.signal);
    async function begin(): Promise<void> {
      const [job, curves] = await Promise.all([readJob(), readCurves(id, {}, abort.signal)]);
      watched.current = { job, curves, events: [], round: 0 };
      setError(undefined);
      draw();
      stop = follow(id, curves, async ({ events, stepped, changed, last }) => {
        const now = watched.current!;
        const job = { ...now.job, progress: advanced(now.job.progress, last) };
        watched.current = { ...now, job, events: [...now.events, ...events], round: now.round + (stepped ? 1 : 0) };
        draw();
        if (!changed && job.progress) return;
        const found = await readJob().catch(() => undefined);
        if (found) watched.current = { ...watched.current, job: found };
        draw();
      });
      if (abort.signal.aborted) stop();
    }
    begin().catch((problem: unknown) => abort.signal.aborted || setError(problem));
    return () => {
      abort.abort();
      stop();
    };
  }, [id, round]);
  return { watched: watched.current?.job.id === id ? watched.current : undefined, error, reload: () => reload() };
}

// A step says by itself how far the job is.
function advanced(progress: Job["progress"], last: Record<string, unknown> | null): Job["progress"] {
  if (!progress || !last) return progress;
  const names = ["step", "epoch", "loss", "tokens_per_second", "progress", "eta_seconds"] as const;
  return { ...progress, ...Object.fromEntries(names.map((name) => [name, last[name] as number])) };
}
