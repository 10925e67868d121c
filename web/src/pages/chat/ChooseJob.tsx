// The jobs that have something to talk to.
import { get } from "../../api";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { Status } from "../../parts/Status";
import { href } from "../../route";
import type { Job } from "../../types";
import { t } from "../../words";
import { NoJobs } from "../NoJobs";

export function ChooseJob() {
  const { data, error, reload } = useLoaded((signal) => get<{ data: Job[] }>("/jobs?limit=100", signal), []);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  if (data.data.length === 0) return <NoJobs />;
  return (
    <>
      <h1>{t("chat")}</h1>
      <p class="quiet">{t("chat.chooseJob")}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("jobs")}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t("name")}</th>
              <th scope="col">{t("status")}</th>
              <th scope="col">{t("model")}</th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((job) => (
              <tr>
                <th scope="row">
                  <a href={href(["chat"], { job: job.id })}>{job.name ?? job.id}</a>
                </th>
                <td>
                  <Status status={job.status} requested={job.requested_action} />
                </td>
                <td>{job.recipe.model}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
