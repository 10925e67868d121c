import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../../api";
import { deleteRating as deleteCall, downloadRatings } from "../../calls";
import { integer } from "../../format";
import { Calls } from "../../parts/Calls";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { go } from "../../route";
import { t } from "../../words";
import { busy } from "./conversation";
import { trainOn } from "./training";
import { type Rating, changes, deleteRating } from "./verdicts";

type Stored = { data: Rating[]; has_more: boolean; desirable: number; undesirable: number; preferences: number };

// The verdicts on this job's answers, and the datasets that they make.
export function Ratings({ jobId }: { jobId: string }) {
  const { data, error, reload } = useLoaded((signal) => get<Stored>(`/jobs/${jobId}/ratings?limit=50`, signal), [jobId, changes.value]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data || data.data.length === 0) return null;
  const files = [
    ...(data.desirable + data.undesirable > 0 ? [{ method: "kto" as const, download: t("ratings.kto"), train: t("ratings.trainKto") }] : []),
    ...(data.preferences > 0 ? [{ method: "dpo" as const, download: t("ratings.dpo"), train: t("ratings.trainDpo") }] : []),
  ];
  return (
    <section class="stack" aria-labelledby="ratings">
      <h2 id="ratings">{t("ratings")}</h2>
      <p class="quiet">{t("ratings.help")}</p>
      <div class="row">
        <span>{t("ratings.counts", { good: integer(data.desirable), bad: integer(data.undesirable), pairs: integer(data.preferences) })}</span>
        {files.map(({ method, download, train }) => (
          <span class="row" key={method}>
            <a href={downloadRatings(jobId, method).path} download>
              {download}
            </a>
            <TrainOn jobId={jobId} method={method} label={train} />
          </span>
        ))}
        {files.length > 0 && <Calls of={t("ratings")} list={files.map(({ method, download }) => ({ title: download, calls: [downloadRatings(jobId, method)] }))} />}
      </div>
      <details>
        <summary>{t("ratings.newest")}</summary>
        <div class="scroll" tabIndex={0} role="region" aria-label={t("ratings")}>
          <table class="plain samples">
            <thead>
              <tr>
                <th scope="col">{t("prompt")}</th>
                <th scope="col">{t("ratings.answer")}</th>
                <th scope="col">{t("ratings.verdict")}</th>
                <th scope="col">{t("actions")}</th>
              </tr>
            </thead>
            <tbody>
              {data.data.map((rating) => (
                <Row key={rating.id} jobId={jobId} rating={rating} />
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </section>
  );
}

function TrainOn({ jobId, method, label }: { jobId: string; method: "kto" | "dpo"; label: string }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const leaving = useRef(new AbortController());
  useEffect(() => () => leaving.current.abort(), []);

  async function train(): Promise<void> {
    setBusy(true);
    setError(undefined);
    try {
      await trainOn(jobId, method, leaving.current.signal);
      go(["new"]);
    } catch (problem) {
      if (leaving.current.signal.aborted) return;
      setError(problem);
      setBusy(false);
    }
  }

  return (
    <>
      <button disabled={busy} onClick={() => void train()}>
        {label}
      </button>
      {error !== undefined && <Problem error={error} />}
    </>
  );
}

function Row({ jobId, rating: { id, messages, answer, label, rejected } }: { jobId: string; rating: Rating }) {
  const [error, setError] = useState<unknown>();
  return (
    <tr>
      <td>{messages.at(-1)?.content}</td>
      <td>{answer.content || JSON.stringify(answer.tool_calls)}</td>
      <td>{label === null ? t("ratings.betterThan", { text: rejected?.content || JSON.stringify(rejected?.tool_calls) }) : t(label ? "chat.good" : "chat.bad")}</td>
      <td>
        <button class="danger" disabled={busy.value} onClick={() => void deleteRating(jobId, id).catch(setError)}>
          {t("delete")}
        </button>
        <Calls of={t("delete")} list={[{ title: t("delete"), calls: [deleteCall(jobId, id)] }]} />
        {error !== undefined && <Problem error={error} />}
      </td>
    </tr>
  );
}
