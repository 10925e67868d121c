// Draws lines on a canvas. The only file that knows uPlot, which draws millions of points fast in 20 kB.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { compact, moment, timeMarks } from "../format";

export type Line = {
  label: string;
  color: string;
  values: (number | null)[];
  faint?: boolean;
  dots?: boolean;
  dash?: number[];
};
export type Mark = { x: number; label: string; color: string };
export type Content = { x: number[]; lines: Line[]; marks: Mark[] };
export type Axis = { label: string; time: boolean; whole: boolean };
export type Range = { min: number; max: number };
export type Options = {
  log: boolean;
  axis: Axis;
  height: number;
  // What the reader chose to see; null for the whole.
  zoomed: (range: Range | null) => void;
};

// Distances of ticks between whole numbers.
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

export class Plot {
  private readonly plot: uPlot;
  private readonly observer: ResizeObserver;
  private marks: Mark[];
  private readonly colors: { ink: string; paper: string };

  constructor(place: HTMLElement, content: Content, range: Range | null, options: Options) {
    this.marks = content.marks;
    const x = options.axis;
    const style = getComputedStyle(place);
    const [ink, grid] = [style.getPropertyValue("--quiet"), style.getPropertyValue("--line")];
    this.colors = { ink, paper: style.getPropertyValue("--paper") };
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const numbers = (_: uPlot, splits: number[]) => splits.map((each) => (each == null ? "" : compact(each)));
    const times = (_: uPlot, splits: number[], __: number, ___: number, distance: number) => timeMarks(splits, distance);
    this.plot = new uPlot(
      {
        width: place.clientWidth || 600,
        height: options.height,
        scales: { x: { time: x.time }, y: { distr: options.log ? 3 : 1 } },
        axes: [x.time ? { ...axis, values: times, space: 88 } : { ...axis, values: numbers, ...(x.whole && { incrs: WHOLE }) }, { ...axis, size: 64, values: numbers }],
        series: [{ label: x.label, value: (_, at) => (at == null ? "–" : x.time ? moment(at * 1000) : compact(at)) }, ...content.lines.map(series)],
        legend: { live: true },
        cursor: { drag: { x: true, y: false, uni: 8 }, points: { size: 6 }, dataIdx: (plot, line, index) => nearest(plot.data[line]!, index) },
        hooks: {
          draw: [() => this.drawMarks()],
          setSelect: [
            (plot) => {
              if (plot.select.width < 2) return;
              options.zoomed({ min: plot.posToVal(plot.select.left, "x"), max: plot.posToVal(plot.select.left + plot.select.width, "x") });
            },
          ],
          ready: [(plot) => plot.over.addEventListener("dblclick", () => options.zoomed(null))],
        },
      },
      data(content),
      place,
    );
    if (range) this.plot.setScale("x", range);
    this.observer = new ResizeObserver(() => this.plot.setSize({ width: place.clientWidth, height: options.height }));
    this.observer.observe(place);
  }

  // While the reader looks at a part of the run, that part stays in place as the run goes on.
  update(content: Content, range: Range | null): void {
    this.marks = content.marks;
    this.plot.setData(data(content), range === null);
    if (range) this.plot.setScale("x", range);
  }

  remove(): void {
    this.observer.disconnect();
    this.plot.destroy();
  }

  private drawMarks(): void {
    const { ctx, bbox } = this.plot;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    const placed = this.marks
      .map((mark) => ({ ...mark, x: Math.round(this.plot.valToPos(mark.x, "x", true)) }))
      .filter(({ x }) => x >= bbox.left && x <= bbox.left + bbox.width);
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const { x, color } of placed) {
      ctx.strokeStyle = color;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    let occupied = -Infinity;
    for (const { x, label } of placed) {
      const width = ctx.measureText(label).width + 8 * devicePixelRatio;
      // To the left of its line where there is no room to the right.
      const begin = x + width > bbox.left + bbox.width ? x - width : x;
      if (begin < occupied) continue;
      // The line of another mark does not cross the words.
      ctx.fillStyle = this.colors.paper;
      ctx.fillRect(begin + 2 * devicePixelRatio, bbox.top + devicePixelRatio, width - 4 * devicePixelRatio, 14 * devicePixelRatio);
      ctx.fillStyle = this.colors.ink;
      ctx.fillText(label, begin + 4 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
      occupied = begin + width;
    }
    ctx.restore();
  }
}

// The place of the value that is nearest to one without.
function nearest(values: ArrayLike<number | null | undefined>, index: number): number {
  for (let away = 0; away < values.length; away++) {
    if (values[index - away] != null) return index - away;
    if (values[index + away] != null) return index + away;
  }
  return index;
}

const data = (content: Content): uPlot.AlignedData => [content.x, ...content.lines.map((line) => line.values)] as uPlot.AlignedData;

function series(line: Line): uPlot.Series {
  return {
    label: line.label,
    stroke: line.faint ? `${line.color}55` : line.color,
    width: line.faint ? 1 : 1.75,
    spanGaps: true,
    points: { show: line.dots ?? false, size: 7 },
    value: (_, value) => (value == null ? "–" : compact(value)),
    ...(line.dash && { dash: line.dash }),
  };
}
