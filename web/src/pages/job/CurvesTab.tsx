import { useMemo } from "preact/hooks";
import { colorOf, otherThan } from "../../colors";
import { type Curves, SHOWN, readCurves } from "../../live/curves";
import { Chart } from "../../plot/Chart";
import { axisOf } from "../../plot/axis";
import type { Content, Mark, Range } from "../../plot/plot";
import { type X, alongside, indexOf, smooth, stepsOf, thinned, xOf } from "../../plot/series";
import { setX, useZoom } from "../../plot/zoom";
import { route, setQuery } from "../../route";
import { type Word, t } from "../../words";
import type { Watched } from "./JobPage";

const XS: X[] = ["step", "epoch", "tokens", "time"];
const GIB = 2 ** 30;
const SMALL_POINTS = 600;
const QUIET = "#808080";
const WORDS: Record<Exclude<(typeof SHOWN)[number], "loss">, Word> = {
  token_accuracy: "tokenAccuracy",
  reward_accuracy: "rewardAccuracy",
  reward_margin: "rewardMargin",
  learning_rate: "learningRate",
  grad_norm: "gradNorm",
  tokens_per_second: "tokensPerSecond",
  memory_bytes: "memory",
  loss_scale: "lossScale",
  router_loss: "routerLoss",
};

export function CurvesTab({ id, watched }: { id: string; watched: Watched }) {
  const query = route.value.query;
  const x = XS.find((each) => each === query.get("x")) ?? "step";
  const log = query.get("log") === "1";
  const weight = Math.min(0.99, Number(query.get("smooth") ?? 0) || 0);
  const { range, detail, zoomed } = useZoom(x, watched.curves.columns.step.length > 0, (range) => readCurves(id, stepsOf(watched.curves, x, range)));
  const curves = detail ?? watched.curves;
  const marks = useMemo(() => marksOf(watched, x), [watched.events, watched.round, x]);
  const content = useMemo(() => lossContent(id, curves, x, weight, marks), [curves, watched.round, x, weight, marks]);

  if (watched.curves.columns.step.length === 0) return <p class="quiet">{t("waitingForSteps")}</p>;
  return (
    <>
      <div class="row controls">
        <label>
          {t("xAxis")}
          <select value={x} onChange={(event) => setX(event.currentTarget.value)}>
            {XS.map((each) => (
              <option value={each}>{t(each)}</option>
            ))}
          </select>
        </label>
        <label>
          <input type="checkbox" checked={log} onChange={() => setQuery("log", log ? "" : "1")} /> {t("logScale")}
        </label>
        <label>
          {t("smoothing")}
          <input
            type="range"
            min="0"
            max="0.99"
            step="0.01"
            value={weight}
            onInput={(event) => setQuery("smooth", event.currentTarget.value === "0" ? "" : event.currentTarget.value)}
          />
        </label>
        {range && <button onClick={() => zoomed(null)}>{t("resetZoom")}</button>}
        <a href={`/jobs/${id}/metrics.csv`} download>
          {t("csv")}
        </a>
        <span class="quiet">{t("zoomHint")}</span>
      </div>
      <Chart key={`loss ${x}`} title={t("loss")} content={content} axis={axisOf(x)} log={log} height={340} range={range} zoomed={zoomed} />
      <div class="charts">
        {SHOWN.filter((name) => name !== "loss").map((name) => (
          <Small key={`${name} ${x}`} name={name} curves={curves} round={watched.round} x={x} color={colorOf(id)} range={range} zoomed={zoomed} />
        ))}
      </div>
    </>
  );
}

type SmallProps = {
  name: Exclude<(typeof SHOWN)[number], "loss">;
  curves: Curves;
  round: number;
  x: X;
  color: string;
  range: Range | null;
  zoomed: (range: Range | null) => void;
};

function Small({ name, curves, round, x, color, range, zoomed }: SmallProps) {
  // The large plot shows every half second what is new.
  const calm = Math.floor(round / 4);
  const content = useMemo(() => {
    const found = thinned(xOf(curves, x), curves.columns[name], SMALL_POINTS);
    const values = found.values.map((value) => (value !== null && name === "memory_bytes" ? value / GIB : value));
    return { x: found.x, lines: [{ label: t(WORDS[name]), color, values }], marks: [] };
  }, [curves, calm, x, color]);
  // Rewards belong to methods that compare answers, a loss scale to fp16, and memory to a GPU.
  if (content.lines[0]!.values.every((value) => value === null)) return null;
  return <Chart title={t(WORDS[name])} content={content} axis={axisOf(x)} range={range} zoomed={zoomed} />;
}

function lossContent(id: string, curves: Curves, x: X, weight: number, marks: Mark[]): Content {
  const { columns, evaluations } = fromTheBase(curves);
  const color = colorOf(id);
  const raw = { label: t("trainLoss"), color, values: [...columns.loss], faint: weight > 0 };
  const lines = [raw];
  if (weight > 0) lines.push({ label: t("smoothed"), color, values: smooth(columns.loss, weight), faint: false });
  const evaluated = alongside(columns.step, evaluations.step, evaluations.eval_loss);
  const all = evaluations.step.length ? [...lines, { label: t("evalLoss"), color: otherThan(color), values: evaluated, dots: true }] : lines;
  return { x: [...columns[x]] as number[], lines: all, marks };
}

// The base model is evaluated before the first step: at step 0, which has no loss of its own.
function fromTheBase({ columns, evaluations }: Curves): Curves {
  if (evaluations.step[0] !== 0 || columns.step[0] !== 1) return { columns, evaluations };
  const names = Object.keys(columns) as (keyof Curves["columns"])[];
  const extended = names.map((name) => {
    const first = name === "time" ? columns.time[0]! : ["step", "epoch", "tokens"].includes(name) ? 0 : null;
    return [name, [first, ...columns[name]]];
  });
  return { columns: Object.fromEntries(extended) as Curves["columns"], evaluations };
}

function marksOf({ job, curves, events }: Watched, x: X): Mark[] {
  const at = (step: unknown): number | undefined => xOf(curves, x)[indexOf(curves.columns.step, Number(step))];
  const best = job.progress?.best_step;
  const marks = events.flatMap(({ type, data }): [number | undefined, string][] => {
    if (type === "checkpoint") return [[at(data.step), data.step === best ? `${t("checkpoint")}, ${t("best")}` : t("checkpoint")]];
    if (type === "started" && Number(data.resumed_step) > 0) return [[at(data.resumed_step), t("attempt", { n: job.attempt })]];
    if (type === "done" && data.stopped_early) return [[at(data.step), t("stoppedEarly")]];
    return [];
  });
  return marks.flatMap(([place, label]) => (place === undefined ? [] : [{ x: place, label, color: QUIET }]));
}
