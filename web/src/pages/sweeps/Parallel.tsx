// A line for each run through an axis for each field, and one for its result.
import { compact } from "../../format";
import type { Sweep } from "../../types";
import { t } from "../../words";
import type { Deciding } from "./best";
import { type Scale, scaleOf } from "./scale";

const [WIDTH, HEIGHT, TOP, SIDE] = [900, 260, 32, 90];
const LEAST_DISTANCE = 16 / (HEIGHT - TOP - 24); // of two words on an axis

type Props = { fields: string[]; runs: Sweep["jobs"]; colors: string[]; best: string | null; by: Deciding };

export function Parallel({ fields, runs, colors, best, by }: Props) {
  const ended = runs.map((run) => (by === "reward_accuracy" ? run.reward_accuracy : run.eval_loss ?? run.loss));
  const axes = [
    ...fields.map((field) => ({ label: field, values: runs.map((run) => run.values[field]) })),
    { label: t(by === "reward_accuracy" ? "rewardAccuracy" : "loss"), values: ended },
  ].map((axis) => ({ ...axis, scale: scaleOf(axis.values) }));
  // One line says nothing, and one without a result ends nowhere.
  if (ended.filter((value) => value !== null).length < 2) return null;
  const x = (index: number) => SIDE + (index / (axes.length - 1)) * (WIDTH - 2 * SIDE);
  const y = (place: number) => TOP + 8 + (1 - place) * (HEIGHT - TOP - 24);
  return (
    <svg class="parallel" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={axes.map((axis) => axis.label).join(" → ")}>
      {runs.map((run, at) => {
        const places = axes.map(({ scale, values }) => scale.place(values[at]));
        if (places.some((place) => place === null)) return null;
        const points = places.map((place, index) => `${x(index)},${y(place!)}`);
        return <polyline points={points.join(" ")} stroke={colors[at]} class={run.id === best ? "best" : ""} />;
      })}
      {axes.map(({ label, scale }, index) => (
        <g>
          <line x1={x(index)} x2={x(index)} y1={y(0)} y2={y(1)} />
          <text x={x(index)} y={16} text-anchor="middle">
            {label}
          </text>
          {apart(scale.ticks).map(({ place, value }) => (
            <text class="tick" x={x(index) + 6} y={y(place) + 4}>
              {typeof value === "number" ? compact(value) : String(value)}
            </text>
          ))}
        </g>
      ))}
    </svg>
  );
}

// Without those whose words would lie on each other. The ends of the axis stay.
function apart(ticks: Scale["ticks"]): Scale["ticks"] {
  const [first, ...others] = ticks.toSorted((a, b) => a.place - b.place);
  const last = others.at(-1);
  if (!first || !last) return ticks;
  const kept = [first];
  for (const tick of others.slice(0, -1)) {
    if (tick.place - kept.at(-1)!.place >= LEAST_DISTANCE && last.place - tick.place >= LEAST_DISTANCE) kept.push(tick);
  }
  return [...kept, last];
}
