// Has a worker make another form of the adapter, or of a checkpoint, and shows how far that is.
import { useState } from "preact/hooks";
import { get } from "../../api";
import { exportJob } from "../../calls";
import { Calls } from "../../parts/Calls";
import { useLoaded } from "../../parts/load";
import { usePolling } from "../../parts/polling";
import { Problem } from "../../parts/Problem";
import { useStart } from "../../parts/starting";
import { Status } from "../../parts/Status";
import { type Artifact, EXPORT_FORMATS, type Export, type ExportFormat } from "../../types";
import { t } from "../../words";

export function Exports({ jobId, artifacts, done }: { jobId: string; artifacts: Artifact[]; done: () => void }) {
  const sources = artifacts.filter((each) => each.kind === "adapter" || each.kind === "checkpoint").map((each) => each.name);
  const [format, setFormat] = useState<ExportFormat>("portable");
  const [chosen, setChosen] = useState<string>();
  const { data, error, reload } = useLoaded((signal) => get<{ data: Export[] }>(`/jobs/${jobId}/exports`, signal), [jobId]);
  // Where one has ended, an artifact may be there.
  usePolling(data?.data, reload, done);
  if (sources.length === 0) return null;
  const source = chosen ?? (sources.includes("adapter.tar") ? "adapter.tar" : sources[0]!);
  const call = exportJob(jobId, source, format);
  const { start, problem } = useStart(call, reload);

  return (
    <section class="panel" aria-labelledby="exports">
      <h2 id="exports">{t("exports")}</h2>
      <form class="row fields" onSubmit={start}>
        <label>
          {t("exports.source")}
          <select value={source} onChange={(event) => setChosen(event.currentTarget.value)}>
            {sources.map((each) => (
              <option value={each}>{each}</option>
            ))}
          </select>
        </label>
        <label>
          {t("exports.format")}
          <select value={format} onChange={(event) => setFormat(event.currentTarget.value as ExportFormat)}>
            {EXPORT_FORMATS.map((each) => (
              <option value={each}>{t(`exports.${each}`)}</option>
            ))}
          </select>
        </label>
        <button>{t("exports.start")}</button>
        <Calls list={[{ title: t("exports.start"), calls: [call] }]} of={t("exports")} />
      </form>
      {problem !== undefined && <Problem error={problem} />}
      {error !== undefined && <Problem error={error} again={reload} />}
      <ul class="plain">
        {data?.data.map((each) => (
          <li>
            <Status status={each.status} /> {each.source} → {each.format}
            {each.failure && <span lang="en"> · {each.failure.message}</span>}
          </li>
        ))}
      </ul>
    </section>
  );
}
