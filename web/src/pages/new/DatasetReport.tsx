import { useEffect, useState } from "preact/hooks";
import { get, send } from "../../api";
import { deleteDataset, uploadDataset } from "../../calls";
import { bytes, integer } from "../../format";
import { Calls } from "../../parts/Calls";
import { Confirm } from "../../parts/Confirm";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { type Word, t } from "../../words";
import type { DatasetDetail, DatasetReport as Report } from "./datasets";
import { Lengths } from "./Lengths";
import { PreviewRows } from "./PreviewRows";

const EVERY_MS = 1000;
const RATINGS = ["desirable", "undesirable"] as const;

type Props = { id: string; query: Record<string, string>; deleted: () => void };

export function DatasetReport({ id, query, deleted }: Props) {
  const { data, error, reload } = useLoaded((signal) => get<DatasetDetail>(`/datasets/${id}`, signal), [id]);
  useEffect(() => {
    if (data?.status !== "uploaded") return;
    const timer = setTimeout(reload, EVERY_MS);
    return () => clearTimeout(timer);
  }, [data]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  return (
    <>
      <div class="row">
        <h2>
          {data.filename} <span class="quiet number">{bytes(data.bytes)}</span>
        </h2>
        <DatasetActions dataset={data} deleted={deleted} />
      </div>
      <Verdict dataset={data} />
      {data.report && <Counts report={data.report} />}
      {data.report && data.report.errors.length > 0 && <Errors report={data.report} />}
      {data.status === "processed" && !query.model && <p class="quiet">{t("data.needsModel")}</p>}
      {data.status !== "uploaded" && query.model && (
        <>
          {data.status === "processed" && <Lengths id={id} query={query} />}
          <PreviewRows id={id} query={query} />
        </>
      )}
    </>
  );
}

function DatasetActions({ dataset: { id, filename }, deleted }: { dataset: DatasetDetail; deleted: () => void }) {
  const [asking, setAsking] = useState(false);
  const [error, setError] = useState<unknown>();
  return (
    <>
      <button type="button" class="danger" aria-label={`${t("delete")}: ${filename}`} onClick={() => setAsking(true)}>
        {t("delete")}
      </button>
      <Calls
        of={filename}
        list={[
          { title: t("data.upload"), calls: [uploadDataset(filename)] },
          { title: t("delete"), calls: [deleteDataset(id)] },
        ]}
      />
      {error !== undefined && <Problem error={error} />}
      {asking && (
        <Confirm
          title={`${t("delete")}: ${filename}`}
          text={t("data.deleteHelp")}
          action={t("delete")}
          confirm={() => send(deleteDataset(id)).then(deleted, setError)}
          close={() => setAsking(false)}
        />
      )}
    </>
  );
}

function Verdict({ dataset: { status, status_details } }: { dataset: DatasetDetail }) {
  if (status === "uploaded") return <p role="status">{t("data.checking")}</p>;
  if (status === "processed") return <p class="good">✓ {t("data.good")}</p>;
  return (
    <p class="problem" lang="en">
      ✕ {status_details}
    </p>
  );
}

function Counts({ report }: { report: Report }) {
  const facts: [Word, number][] = [
    ["data.rows", report.rows],
    ["data.examples", report.examples],
    ["data.badRows", report.bad_rows],
    ["data.duplicates", report.duplicates],
    ["data.emptyAnswers", report.empty_answers],
    ...(report.learned === "pairs" ? [["data.identicalPairs", report.identical_pairs] satisfies [Word, number]] : []),
    ...(report.learned === "ratings" ? RATINGS.map((name): [Word, number] => [`data.${name}`, report[name]]) : []),
  ];
  const columns = Object.entries(report.columns).map(([field, column]) => `${field} ← ${column}`);
  const unused = Object.entries(report.unused_fields).map(([name, rows]) => `${name} (${integer(rows)})`);
  return (
    <>
      <dl class="facts">
        {facts.map(([word, value]) => (
          <div>
            <dt>{t(word)}</dt>
            <dd class="number">{integer(value)}</dd>
          </div>
        ))}
      </dl>
      {report.duplicate_rows.length > 0 && <p class="quiet">{t("data.duplicateRows", { rows: report.duplicate_rows.join(", ") })}</p>}
      {columns.length > 0 && <Listed word="data.columns" names={columns} />}
      {unused.length > 0 && <Listed word="data.unused" names={unused} />}
    </>
  );
}

function Listed({ word, names }: { word: Word; names: string[] }) {
  return (
    <p>
      {t(word)}: <code>{names.join(", ")}</code>
    </p>
  );
}

function Errors({ report: { errors, error_count } }: { report: Report }) {
  return (
    <details open>
      <summary>{t("data.errors")}</summary>
      <div class="scroll errors" tabIndex={0} role="region" aria-label={t("data.errors")}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t("data.row")}</th>
              <th scope="col">{t("data.problem")}</th>
            </tr>
          </thead>
          <tbody>
            {errors.map(({ row, message }) => (
              <tr>
                <th scope="row" class="number">
                  {row ?? t("data.wholeFile")}
                </th>
                <td lang="en">{message}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {error_count > errors.length && <p class="quiet">{t("data.moreErrors", { n: integer(error_count - errors.length) })}</p>}
    </details>
  );
}
