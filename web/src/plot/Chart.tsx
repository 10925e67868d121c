import { useEffect, useRef } from "preact/hooks";
import { language, theme } from "../settings";
import { drawNoMore, drawSoon } from "./frames";
import { type Axis, type Content, Plot } from "./plot";

type Props = {
  title: string;
  content: Content;
  axis: Axis;
  log?: boolean;
  height?: number;
  zoomed?: (range: { min: number; max: number } | null) => void;
};

const HEIGHT = 220;

export function Chart({ title, content, axis, log = false, height = HEIGHT, zoomed = () => {} }: Props) {
  const place = useRef<HTMLDivElement>(null);
  // As the plot that is there, which outlives a render, is to be now.
  const wanted = useRef({ content, zoomed });
  wanted.current = { content, zoomed };
  const changed = useRef<() => void>(undefined);
  // A line that comes or goes, another scale, theme or language: a new plot. New points: the same.
  const form = [log, axis.label, theme.value, language.value, ...content.lines.map((line) => `${line.label} ${line.color}`)].join("|");
  useEffect(() => {
    const options = { log, axis, height, zoomed: (range: { min: number; max: number } | null) => wanted.current.zoomed(range) };
    let plot: Plot | undefined;
    let shown: Content | undefined;
    let inSight = false;
    const draw = (): void => {
      if (!inSight || shown === wanted.current.content) return;
      shown = wanted.current.content;
      if (plot) plot.update(shown);
      else plot = new Plot(place.current!, shown, options);
    };
    // A plot that nobody sees is not drawn.
    const observer = new IntersectionObserver(
      (entries) => {
        inSight = entries.at(-1)!.isIntersecting;
        drawSoon(draw);
      },
      { rootMargin: "100px" },
    );
    observer.observe(place.current!);
    changed.current = () => drawSoon(draw);
    return () => {
      observer.disconnect();
      drawNoMore(draw);
      plot?.remove();
    };
  }, [form]);
  useEffect(() => changed.current?.(), [content]);
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
