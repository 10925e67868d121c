// The answers to the same examples, side by side: those of one evaluation, or of several on the same dataset.
import { useState } from "preact/hooks";
import { get } from "../../api";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import type { Evaluation, Model, Page, Row } from "./types";

export type Column = { title: string; of: Pick<Evaluation, "id" | "job_id">; model: Model };

export function Answers({ columns }: { columns: readonly Column[] }) {
  // The number behind which each page begins.
  const [begins, setBegins] = useState<readonly number[]>([0]);
  const after = begins.at(-1)!;
  const urls = [...new Set(columns.map(({ of }) => `/jobs/${of.job_id}/evaluations/${of.id}/rows`))];
  const { data, error, reload } = useLoaded((signal) => Promise.all(urls.map((url) => get<Page<Row>>(`${url}?after=${after}`, signal))), [urls.join(), after]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return null;
  const shown = columns.map(({ title, of, model }) => ({ title, model, rows: data[urls.indexOf(`/jobs/${of.job_id}/evaluations/${of.id}/rows`)]!.data }));
  // Each may have left out examples that were too long for it: the page ends where the shortest one does.
  const more = data.filter((page) => page.has_more);
  const end = Math.min(...more.map((page) => page.data.at(-1)!.number));
  const all = new Map(data.flatMap((page) => page.data.filter(({ number }) => number <= end)).map((row) => [row.number, row]));
  const examples = [...all.values()].sort((a, b) => a.number - b.number);
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("evaluations.answers")}>
        <table class="plain samples">
          <thead>
            <tr>
              <th scope="col">{t("prompt")}</th>
              <th scope="col">{t("expected")}</th>
              {shown.map(({ title }) => (
                <th scope="col">{title}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {examples.map(({ number, prompt, reference }) => (
              <tr key={number}>
                <td>{prompt}</td>
                <td>{reference}</td>
                {shown.map(({ rows, model }) => (
                  <td>{rows.find((row) => row.number === number)?.[model].answer ?? "–"}</td>
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
        <button disabled={more.length === 0} onClick={() => setBegins([...begins, end])}>
          {t("evaluations.after")}
        </button>
      </p>
    </>
  );
}
