import { get } from "../../api";
import { bytes } from "../../format";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import type { Artifact, Job, JobEvent } from "../../types";
import { t } from "../../words";
import { kindOf } from "../../words/terms";
import { Exports } from "./Exports";
import { Pushes } from "./Pushes";

export function Artifacts({ job, events }: { job: Job; events: JobEvent[] }) {
  const changes = events.filter((event) => event.type === "checkpoint" || event.type === "status").length;
  const { data, error, reload } = useLoaded(
    (signal) => get<{ data: Artifact[] }>(`/jobs/${job.id}/artifacts`, signal),
    [job.id, job.status, changes],
  );
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  if (data.data.length === 0) return <p class="quiet">{t("noArtifacts")}</p>;
  return (
    <>
      <Exports jobId={job.id} artifacts={data.data} done={reload} />
      <Pushes jobId={job.id} artifacts={data.data} />
      <div class="scroll" tabIndex={0} role="region" aria-label={t("artifacts")}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t("name")}</th>
              <th scope="col">{t("kind")}</th>
              <th scope="col">{t("step")}</th>
              <th scope="col">{t("evalLoss")}</th>
              <th scope="col">{t("size")}</th>
              <th scope="col">{t("digest")}</th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((each) => (
              <tr>
                <th scope="row" class="word">
                  <a href={`/jobs/${job.id}/artifacts/${each.name}`} download>
                    {each.name}
                  </a>
                </th>
                <td class="word">{kindOf(each.kind)}</td>
                <td class="number">{each.step ?? "–"}</td>
                <td class="number">
                  {each.eval_loss?.toFixed(4) ?? "–"} {each.best && `★ ${t("best")}`}
                </td>
                <td class="number">{bytes(each.bytes)}</td>
                <td class="word">
                  <code>{each.sha256}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
