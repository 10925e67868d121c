// The datasets that were run through the base model and the adapter: the scores, and the answers side by side.
import { useEffect, useState } from "preact/hooks";
import { get } from "../../api";
import { loss } from "../../format";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { Status } from "../../parts/Status";
import { t } from "../../words";

const POLL_MS = 2000;
const MODELS = ["base", "adapter"] as const;
const SCORES = ["loss", "exact_match", "token_f1", "rouge_l"] as const;

type Scores = Record<(typeof SCORES)[number], number>;
type Evaluation = {
  id: string;
  checkpoint: number | null;
  dataset: { path: string; filename: string | null };
  status: "queued" | "running" | "succeeded" | "failed";
  waits: string | null;
  examples: number;
  done: number;
  scores: Record<(typeof MODELS)[number], Scores> | null;
  failure: { message: string } | null;
};
type Row = { number: number; prompt: string; reference: string } & Record<(typeof MODELS)[number], { answer: string }>;
type Page<T> = { data: T[]; has_more: boolean };

export function Evaluations({ id }: { id: string }) {
  const [opened, setOpened] = useState<string>();
  const { data, error, reload } = useLoaded((signal) => get<Page<Evaluation>>(`/jobs/${id}/evaluations`, signal), [id]);
  const open = data?.data.some((each) => each.status === "queued" || each.status === "running") ?? false;
  useEffect(() => {
    if (!open) return;
    const timer = setInterval(reload, POLL_MS);
    return () => clearInterval(timer);
  }, [open]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data || data.data.length === 0) return null;
  return (
    <section aria-label={t("evaluations")}>
      <h2>{t("evaluations")}</h2>
      {data.data.map((each) => (
        <details open={opened === each.id} onToggle={(event) => event.currentTarget.open && setOpened(each.id)}>
          <summary>
            <Status status={each.status} /> {each.dataset.filename ?? each.dataset.path}
            {each.checkpoint !== null && ` · ${t("step")} ${each.checkpoint}`} · {each.done}/{each.examples}
          </summary>
          {each.failure && <p lang="en">{each.failure.message}</p>}
          {each.waits && <p lang="en">{each.waits}</p>}
          {each.scores && <ScoreTable scores={each.scores} />}
          {opened === each.id && <Rows key={each.id} url={`/jobs/${id}/evaluations/${each.id}/rows`} />}
        </details>
      ))}
    </section>
  );
}

function ScoreTable({ scores }: { scores: Record<(typeof MODELS)[number], Scores> }) {
  return (
    <table class="plain">
      <thead>
        <tr>
          <td />
          {SCORES.map((score) => (
            <th scope="col">{t(`evaluations.${score}`)}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {MODELS.map((model) => (
          <tr>
            <th scope="row">{t(`evaluations.${model}`)}</th>
            {SCORES.map((score) => (
              <td>{loss(scores[model][score])}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Rows({ url }: { url: string }) {
  // The number behind which each page begins.
  const [begins, setBegins] = useState<readonly number[]>([0]);
  const after = begins[begins.length - 1]!;
  const { data, error, reload } = useLoaded((signal) => get<Page<Row>>(`${url}?after=${after}`, signal), [url, after]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return null;
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("evaluations.answers")}>
        <table class="plain samples">
          <thead>
            <tr>
              <th scope="col">{t("prompt")}</th>
              <th scope="col">{t("expected")}</th>
              {MODELS.map((model) => (
                <th scope="col">{t(`evaluations.${model}`)}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {data.data.map((row) => (
              <tr>
                <td>{row.prompt}</td>
                <td>{row.reference}</td>
                {MODELS.map((model) => (
                  <td>{row[model].answer}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="row">
        <button disabled={begins.length === 1} onClick={() => setBegins(begins.slice(0, -1))}>
          {t("evaluations.before")}
        </button>
        <button disabled={!data.has_more} onClick={() => setBegins([...begins, data.data[data.data.length - 1]!.number])}>
          {t("evaluations.after")}
        </button>
      </p>
    </>
  );
}
