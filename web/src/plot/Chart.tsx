import { useEffect, useRef } from "preact/hooks";
import { language, theme } from "../settings";
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
  const plot = useRef<Plot>(undefined);
  // A line that comes or goes, another scale, theme or language: a new plot. New points: the same.
  const form = [log, axis.label, theme.value, language.value, ...content.lines.map((line) => `${line.label} ${line.color}`)].join("|");
  useEffect(() => {
    plot.current = new Plot(place.current!, content, { log, axis, height, zoomed });
    return () => plot.current!.remove();
  }, [form]);
  useEffect(() => plot.current!.update(content), [content]);
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={place} role="img" aria-label={describe(title, content)} />
    </figure>
  );
}

// For those who cannot see the picture.
function describe(title: string, { lines }: Content): string {
  const parts = lines.map(({ label, values }) => {
    const known = values.filter((value) => value !== null);
    return known.length ? `${label}: ${known[0]!.toPrecision(4)} → ${known.at(-1)!.toPrecision(4)}` : label;
  });
  return [title, ...parts].join(". ");
}
