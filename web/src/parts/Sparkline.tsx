const [WIDTH, HEIGHT] = [80, 20];

export function Sparkline({ values, color }: { values: readonly number[]; color: string }) {
  if (values.length < 2) return <svg class="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true" />;
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const scale = (HEIGHT - 4) / (most - least || 1);
  const points = values.map((value, index) => {
    const x = (index / (values.length - 1)) * (WIDTH - 2) + 1;
    return `${x.toFixed(1)},${(HEIGHT - 2 - (value - least) * scale).toFixed(1)}`;
  });
  return (
    <svg class="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <polyline points={points.join(" ")} stroke={color} />
    </svg>
  );
}
