import { useEffect, useRef } from "preact/hooks";
import { language, theme } from "../settings";
import { drawNoMore, drawSoon } from "./frames";
import { type Axis, type Content, Plot, type Range } from "./plot";

type Props = {
  title: string;
  content: Content;
  axis: Axis;
  log?: boolean;
  height?: number;
  range?: Range | null;
  zoomed?: (range: Range | null) => void;
};

const HEIGHT = 220;

export function Chart({ title, content, axis, log = false, height = HEIGHT, range = null, zoomed = () => {} }: Props) {
  const place = useRef<HTMLDivElement>(null);
  // As the plot that is there, which outlives a render, is to be now.
  const wanted = useRef({ content, range, zoomed });
  wanted.current = { content, range, zoomed };
  const changed = useRef<() => void>(undefined);
  // A line that comes or goes, another scale, theme or language: a new plot. New points: the same.
  const form = [log, axis.label, theme.value, language.value, ...content.lines.map((line) => `${line.label} ${line.color}`)].join("|");
  useEffect(() => {
    const options = { log, axis, height, zoomed: (chosen: Range | null) => wanted.current.zoomed(chosen) };
    // It may be drawn once more after it has left the document.
    const element = place.current!;
    let plot: Plot | undefined;
    let shown: { content?: Content; range?: Range | null } = {};
    let inSight = false;
    const draw = (): void => {
      const { content, range } = wanted.current;
      if (!inSight || (shown.content === content && shown.range === range)) return;
      shown = { content, range };
      if (plot) plot.update(content, range);
      else plot = new Plot(element, content, range, options);
    };
    // A plot that nobody sees is not drawn.
    const observer = new IntersectionObserver(
      (entries) => {
        inSight = entries.at(-1)!.isIntersecting;
        drawSoon(draw);
      },
      { rootMargin: "100px" },
    );
    observer.observe(element);
    changed.current = () => drawSoon(draw);
    return () => {
      observer.disconnect();
      drawNoMore(draw);
      plot?.remove();
    };
  }, [form]);
  useEffect(() => changed.current?.(), [content, range]);
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={place} class="plot" style={{ minHeight: `${height}px` }} role="img" aria-label={describe(title, content)} />
    </figure>
  );
}

// For those who cannot see the picture.
function describe(title: string, { lines }: Content): string {
  const parts = lines.map(({ label, values }) => {
    const [first, last] = [values.find((value) => value !== null), values.findLast((value) => value !== null)];
    return first != null && last != null ? `${label}: ${first.toPrecision(4)} → ${last.toPrecision(4)}` : label;
  });
  return [title, ...parts].join(". ");
}
