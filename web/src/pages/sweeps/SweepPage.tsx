import { useEffect, useState } from "preact/hooks";
import { get, send } from "../../api";
import { showSweep, stopSweep } from "../../calls";
import { colorsOf } from "../../colors";
import { loss } from "../../format";
import { followJobs, jobs } from "../../live/jobs";
import { Calls } from "../../parts/Calls";
import { Confirm } from "../../parts/Confirm";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { Status } from "../../parts/Status";
import { href } from "../../route";
import type { Sweep } from "../../types";
import { t } from "../../words";
import { bestOf, deciding, going, shownResults } from "./best";
import { Parallel } from "./Parallel";

export function SweepPage({ id }: { id: string }) {
  useEffect(followJobs, []);
  const live = new Map((jobs.value ?? []).filter((job) => job.sweep_id === id).map((job) => [job.id, job]));
  const { data: sweep, error, reload } = useLoaded((signal) => get<Sweep>(`/sweeps/${id}`, signal), [id]);
  const [confirming, setConfirming] = useState(false);
  const [refused, setRefused] = useState<unknown>();
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!sweep) return <p class="quiet">{t("loading")}</p>;
  const runs = sweep.jobs.map((run) => ({ ...run, ...pick(live.get(run.id)) }));
  const best = bestOf(runs);
  const by = deciding(going(runs));
  const shown = shownResults(runs);
  const open = runs.filter((run) => ["queued", "running", "paused"].includes(run.status) && run.id !== best);
  const colors = colorsOf(runs.map((run) => run.id));
  return (
    <>
      <div class="row controls">
        <h1>{sweep.name ?? sweep.id}</h1>
        <a href={href(["compare"], { jobs: runs.map((run) => run.id).join(",") })}>{t("compare")}</a>
        <button class="danger" disabled={open.length === 0} onClick={() => setConfirming(true)}>
          {t("sweeps.stop")}
        </button>
        <Calls
          list={[
            { title: t("sweeps.stop"), calls: [stopSweep(id, best)] },
            { title: t("result"), calls: [showSweep(id)] },
          ]}
        />
      </div>
      {refused !== undefined && <Problem error={refused} />}
      <div class="scroll" tabIndex={0} role="region" aria-label={t("sweeps.parallel")}>
        <Parallel fields={sweep.fields} runs={runs} colors={colors} best={best} by={by} />
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("result")}>
        <table class="plain">
          <thead>
            <tr>
              {sweep.fields.map((field) => (
                <th scope="col">{field}</th>
              ))}
              <th scope="col">{t("status")}</th>
              <th scope="col">{t("step")}</th>
              {shown.map(({ word }) => (
                <th scope="col">{t(word)}</th>
              ))}
              <th scope="col">{t("name")}</th>
            </tr>
          </thead>
          <tbody>
            {runs.map((run) => (
              <tr>
                {sweep.fields.map((field) => (
                  <td class="number">{field in run.values ? JSON.stringify(run.values[field]) : "–"}</td>
                ))}
                <td>
                  <Status status={run.status} />
                </td>
                <td class="number">
                  {run.step ?? "–"}
                  {run.total_steps !== null && ` / ${run.total_steps}`}
                </td>
                {shown.map(({ name }) => (
                  <td class="number">
                    {loss(run[name])} {run.id === best && name === by && `★ ${t("best")}`}
                  </td>
                ))}
                <td>
                  <a href={href(["jobs", run.id])}>{run.id}</a>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {confirming && (
        <Confirm
          title={t("sweeps.stop")}
          text={t("confirm.cancelMany", { n: open.length })}
          action={t("sweeps.stop")}
          confirm={() => send(stopSweep(id, best)).then(reload, setRefused)}
          close={() => setConfirming(false)}
        />
      )}
    </>
  );
}

function pick(job: Omit<Sweep["jobs"][number], "id" | "values"> | undefined) {
  if (!job) return undefined;
  const { status, step, total_steps, loss, eval_loss, reward_accuracy, reward_margin } = job;
  return { status, step, total_steps, loss, eval_loss, reward_accuracy, reward_margin };
}
