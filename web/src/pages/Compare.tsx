import { useMemo } from "preact/hooks";
import { get } from "../api";
import { colorsOf } from "../colors";
import { loss } from "../format";
import { readCurves } from "../live/curves";
import { useLoaded } from "../parts/load";
import { Problem } from "../parts/Problem";
import { Status } from "../parts/Status";
import { Chart } from "../plot/Chart";
import { type X, aligned, axisOf, smooth, xOf } from "../plot/series";
import { href, route, setQuery } from "../route";
import type { Job } from "../types";
import { t } from "../words";
import { differing, flat } from "./recipes";

const XS: X[] = ["step", "epoch", "tokens"];

export function Compare() {
  const query = route.value.query;
  const ids = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))];
  const x = XS.find((each) => each === query.get("x")) ?? "step";
  const weight = Math.min(0.99, Number(query.get("smooth") ?? 0) || 0);
  const { data, error, reload } = useLoaded(
    (signal) =>
      Promise.all(
        ids.map(async (id) => {
          const [job, curves] = await Promise.all([get<Job>(`/jobs/${id}`, signal), readCurves(id, undefined, undefined, signal)]);
          return { job, curves };
        }),
      ),
    [ids.join()],
  );
  const content = useMemo(() => {
    const found = data ?? [];
    const colors = colorsOf(found.map(({ job }) => job.id));
    const joined = aligned(found.map(({ curves }) => ({ x: xOf(curves, x), values: smooth(curves.columns.loss, weight) })));
    const lines = found.map(({ job }, index) => ({
      label: job.name ?? job.id,
      color: colors[index]!,
      values: joined.columns[index]!,
      // Told apart by their dashes, too, where there are more jobs than colours.
      dash: index < 6 ? [] : [6, 4],
    }));
    return { x: joined.x, lines, marks: [] };
  }, [data, x, weight]);

  if (ids.length === 0) return <p class="quiet">{t("compareHelp")}</p>;
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  const recipes = data.map(({ job }) => flat(job.recipe));
  return (
    <>
      <div class="row controls">
        <h1>{t("compare")}</h1>
        <label>
          {t("xAxis")}
          <select value={x} onChange={(event) => setQuery("x", event.currentTarget.value)}>
            {XS.map((each) => (
              <option value={each}>{t(each)}</option>
            ))}
          </select>
        </label>
        <label>
          {t("smoothing")}
          <input type="range" min="0" max="0.99" step="0.01" value={weight} onInput={(event) => setQuery("smooth", event.currentTarget.value)} />
        </label>
        <button onClick={reload}>{t("retry")}</button>
      </div>
      <Chart key={x} title={t("loss")} content={content} axis={axisOf(x)} height={340} />
      <div class="scroll" tabIndex={0} role="region" aria-label={t("differences")}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t("differences")}</th>
              {data.map(({ job }, index) => (
                <th scope="col">
                  <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">
                    <rect width="10" height="10" fill={content.lines[index]!.color} />
                  </svg>{" "}
                  <a href={href(["jobs", job.id])}>{job.name ?? job.id}</a>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">{t("status")}</th>
              {data.map(({ job }) => (
                <td>
                  <Status status={job.status} />
                </td>
              ))}
            </tr>
            <Result word="loss" values={data.map(({ job }) => job.progress?.loss)} />
            <Result word="evalLoss" values={data.map(({ job }) => job.progress?.eval_loss)} />
            {differing(recipes).map((field) => (
              <tr>
                <th scope="row">{field}</th>
                {recipes.map((recipe) => (
                  <td>
                    <code>{recipe[field] ?? "–"}</code>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Result({ word, values }: { word: "loss" | "evalLoss"; values: (number | null | undefined)[] }) {
  const least = Math.min(...values.map((value) => value ?? Infinity));
  return (
    <tr>
      <th scope="row">{t(word)}</th>
      {values.map((value) => (
        <td class="number">
          {loss(value)} {value === least && `★ ${t("best")}`}
        </td>
      ))}
    </tr>
  );
}
