// Plots are drawn one at a time, each in a frame of its own: several in one frame would hold up what the reader does.
const due = new Set<() => void>();

export function drawSoon(draw: () => void): void {
  if (due.size === 0) requestAnimationFrame(next);
  due.add(draw);
}

export const drawNoMore = (draw: () => void): boolean => due.delete(draw);

function next(): void {
  const [draw] = due;
  if (!draw) return;
  due.delete(draw);
  if (due.size > 0) requestAnimationFrame(next);
  draw();
}
