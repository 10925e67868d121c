import { get } from "../../api";
import { asCommand, createSweep } from "../../calls";
import { moment } from "../../format";
import { Calls } from "../../parts/Calls";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { href } from "../../route";
import type { Sweep } from "../../types";
import { t } from "../../words";

const FIRST = createSweep({ model: "MODEL", dataset: "rows.jsonl" }, { "optimizer.learning_rate": [0.0001, 0.0002], "adapter.r": [8, 16] });

export function Sweeps() {
  const { data, error, reload } = useLoaded((signal) => get<{ data: Sweep[] }>("/sweeps", signal), []);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  if (data.data.length === 0) {
    return (
      <section class="empty">
        <h1>{t("sweeps.empty")}</h1>
        <p>{t("sweeps.emptyHelp")}</p>
        <pre>{asCommand(FIRST, location.origin)}</pre>
        <Calls list={[{ title: t("sweeps.create"), calls: [FIRST] }]} />
      </section>
    );
  }
  return (
    <>
      <div class="row">
        <h1>{t("sweeps")}</h1>
        <Calls list={[{ title: t("sweeps.create"), calls: [FIRST] }]} />
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("sweeps")}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t("name")}</th>
              <th scope="col">{t("field")}</th>
              <th scope="col">{t("jobs")}</th>
              <th scope="col">{t("owner")}</th>
              <th scope="col">{t("created")}</th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((sweep) => (
              <tr>
                <th scope="row">
                  <a href={href(["sweeps", sweep.id])}>{sweep.name ?? sweep.id}</a>
                </th>
                <td>{sweep.fields.join(", ")}</td>
                <td class="number">
                  {sweep.jobs.filter((job) => job.status === "succeeded").length} / {sweep.jobs.length}
                </td>
                <td>{sweep.owner}</td>
                <td>{moment(sweep.created_at)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
