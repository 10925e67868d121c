import { useState } from "preact/hooks";
import { get } from "../../api";
import { integer } from "../../format";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import { busy } from "./conversation";
import { type Rating, changes, deleteRating } from "./verdicts";

type Stored = { data: Rating[]; has_more: boolean; desirable: number; undesirable: number; preferences: number };

// The verdicts on this job's answers, and the datasets that they make.
export function Ratings({ jobId }: { jobId: string }) {
  const { data, error, reload } = useLoaded((signal) => get<Stored>(`/jobs/${jobId}/ratings?limit=50`, signal), [jobId, changes.value]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data || data.data.length === 0) return null;
  const file = (method: string) => `/jobs/${jobId}/ratings-${method}.jsonl`;
  return (
    <section class="stack" aria-labelledby="ratings">
      <h2 id="ratings">{t("ratings")}</h2>
      <p class="quiet">{t("ratings.help")}</p>
      <div class="row">
        <span>{t("ratings.counts", { good: integer(data.desirable), bad: integer(data.undesirable), pairs: integer(data.preferences) })}</span>
        {data.desirable + data.undesirable > 0 && (
          <a href={file("kto")} download>
            {t("ratings.kto")}
          </a>
        )}
        {data.preferences > 0 && (
          <a href={file("dpo")} download>
            {t("ratings.dpo")}
          </a>
        )}
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
        {error !== undefined && <Problem error={error} />}
      </td>
    </tr>
  );
}
