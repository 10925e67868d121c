import { get, post } from "../../api";
import { bytes, compact, duration, integer, memory } from "../../format";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import type { Job, Usage } from "../../types";
import { type Word, t } from "../../words";
import { MemoryBar } from "../new/MemoryBar";
import type { DevicePlan, Plan } from "../new/plan";
import { ExitReport } from "./ExitReport";

// What the job was to take, by the plan of its recipe, beside what it has taken.
export function UsageTab({ job }: { job: Job }) {
  const used = useLoaded((signal) => get<Usage>(`/jobs/${job.id}/usage`, signal), [job.id, job.status, job.attempt]);
  const planned = useLoaded((signal) => post<Plan>("/plans", { ...job.recipe, batch: job.batch ?? job.recipe.batch }, { signal }), [job.id, job.attempt]);
  if (used.error !== undefined) return <Problem error={used.error} again={used.reload} />;
  if (!used.data || (!planned.data && planned.error === undefined)) return <p class="quiet">{t("loading")}</p>;
  const device = planned.data && deviceOf(planned.data, used.data);
  return (
    <>
      {planned.error !== undefined && (
        <>
          <p class="quiet">{t("usage.noPlan")}</p>
          <Problem error={planned.error} />
        </>
      )}
      <div class="scroll" tabIndex={0} role="region" aria-label={t("usage")}>
        <Table usage={used.data} plan={planned.data} device={device} />
      </div>
      {device && (
        <section>
          <h2>{t("usage.memoryByPart")}</h2>
          <MemoryBar plan={device} measured={used.data.peak_memory_bytes} />
        </section>
      )}
      {job.exit_report && <ExitReport report={job.exit_report} />}
    </>
  );
}

// The kind of device that it ran on. Before it has run, the first one that has room.
function deviceOf({ devices }: Plan, usage: Usage): DevicePlan | undefined {
  const name = usage.device?.toLowerCase();
  const same = name && devices.find((each) => name.startsWith(each.device.toLowerCase()));
  return same || devices.find((each) => each.fits !== false) || devices[0];
}

type Row = { word: Word; planned: number | null | undefined; actual: number | null; show: (value: number) => string };

function Table({ usage, plan, device }: { usage: Usage; plan: Plan | undefined; device: DevicePlan | undefined }) {
  const disk = usage.run_bytes === null ? null : usage.artifact_bytes + usage.run_bytes;
  const rows: Row[] = [
    { word: "usage.peakMemory", planned: device?.memory.total, actual: usage.peak_memory_bytes, show: memory },
    { word: "usage.trainingTime", planned: usage.expected_seconds ?? device?.eta_seconds, actual: usage.steps ? usage.training_seconds : null, show: duration },
    { word: "usage.artifacts", planned: plan?.disk?.adapters, actual: usage.artifact_bytes, show: bytes },
    { word: "disk", planned: plan?.disk?.total, actual: disk, show: bytes },
    { word: "plan.steps", planned: plan?.work.steps, actual: usage.steps, show: integer },
    { word: "tokens", planned: plan?.work.tokens, actual: usage.tokens, show: compact },
  ];
  return (
    <table class="plain usage">
      <thead>
        <tr>
          <th scope="col">{t("usage")}</th>
          <th scope="col">{t("usage.planned")}</th>
          <th scope="col">{t("usage.actual")}</th>
          <th scope="col">{t("usage.share")}</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ word, planned, actual, show }) => (
          <tr>
            <th scope="row">{t(word)}</th>
            <td class="number">{planned == null ? "–" : show(planned)}</td>
            <td class="number">{actual === null ? "–" : show(actual)}</td>
            <td class="number">{planned && actual !== null ? `${Math.round((100 * actual) / planned)}%` : "–"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
