import { useMemo } from "preact/hooks";
import { colorsOf } from "../colors";
import { loss } from "../format";
import { type Compared, useCompared } from "../live/compared";
import { type Curves, readLosses } from "../live/curves";
import { RecipeRows } from "../parts/RecipeRows";
import { Problem } from "../parts/Problem";
import { Status } from "../parts/Status";
import { Chart } from "../plot/Chart";
import { axisOf } from "../plot/axis";
import type { Content } from "../plot/plot";
import { type X, aligned, smooth, stepsOf, xOf } from "../plot/series";
import { setX, useZoom } from "../plot/zoom";
import { href, route, setQuery } from "../route";
import { t } from "../words";
import { ComparedEvaluations } from "./evaluations/ComparedEvaluations";
import { differing, flat } from "./recipes";
import { type Results, deciding, leading, shownResults } from "./sweeps/best";

const XS: X[] = ["step", "epoch", "tokens"];
const COLORS = 6;
const NO_RESULTS: Results = { loss: null, eval_loss: null, reward_accuracy: null, reward_margin: null };
const EMPTY: Content = { x: [], lines: [], marks: [] };

export function Compare() {
  const query = route.value.query;
  const ids = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))];
  const x = XS.find((each) => each === query.get("x")) ?? "step";
  const weight = Math.min(0.99, Number(query.get("smooth") ?? 0) || 0);
  const { data, round, error, reload } = useCompared(ids);
  const { range, detail, zoomed } = useZoom(x, data !== undefined, (range) =>
    Promise.all(data!.map(({ job, curves }) => readLosses(job.id, stepsOf(curves, x, range)))),
  );
  const content = useMemo(() => (data ? losses(data, detail, x, weight) : EMPTY), [data, round, detail, x, weight]);

  if (ids.length === 0) return <p class="quiet">{t("compareHelp")}</p>;
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  const recipes = data.map(({ job }) => flat(job.recipe));
  const results = data.map(({ job }) => job.progress ?? NO_RESULTS);
  const [best, by] = [leading(results), deciding(results)];
  return (
    <>
      <div class="row controls">
        <h1>{t("compare")}</h1>
        <label>
          {t("xAxis")}
          <select value={x} onChange={(event) => setX(event.currentTarget.value)}>
            {XS.map((each) => (
              <option value={each}>{t(each)}</option>
            ))}
          </select>
        </label>
        <label>
          {t("smoothing")}
          <input type="range" min="0" max="0.99" step="0.01" value={weight} onInput={(event) => setQuery("smooth", event.currentTarget.value)} />
        </label>
        {range && <button onClick={() => zoomed(null)}>{t("resetZoom")}</button>}
        <span class="quiet">{t("zoomHint")}</span>
      </div>
      <Chart key={x} title={t("loss")} content={content} axis={axisOf(x)} height={340} range={range} zoomed={zoomed} />
      <div class="scroll" tabIndex={0} role="region" aria-label={t("differences")}>
        <table class="plain compared">
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
            {shownResults(results).map(({ name, word }) => (
              <tr>
                <th scope="row">{t(word)}</th>
                {results.map((each) => (
                  <td class="number">
                    {loss(each[name])} {each === best && name === by && `★ ${t("best")}`}
                  </td>
                ))}
              </tr>
            ))}
            <RecipeRows fields={differing(recipes)} recipes={recipes} />
          </tbody>
        </table>
      </div>
      <ComparedEvaluations jobs={data.map(({ job }) => job)} />
    </>
  );
}

function losses(data: readonly Compared[], detail: readonly Curves[] | undefined, x: X, weight: number): Content {
  const colors = colorsOf(data.map(({ job }) => job.id));
  const shown = detail ?? data.map(({ curves }) => curves);
  const joined = aligned(shown.map((curves) => ({ x: xOf(curves, x), values: smooth(curves.columns.loss, weight) })));
  const lines = data.map(({ job }, index) => ({
    label: job.name ?? job.id,
    color: colors[index]!,
    values: joined.columns[index]!,
    // Several jobs of one colour are told apart by their dashes.
    dash: index < COLORS ? [] : [6, 4],
  }));
  return { x: joined.x, lines, marks: [] };
}
