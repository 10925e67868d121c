// A colour for each job, the same on every page. The palette is that of Okabe and Ito, which readers with any kind of
// colour vision tell apart; yellow is left out, since it vanishes on white.
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

export function colorOf(id: string): string {
  let hash = 0;
  for (const letter of id) hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
  return PALETTE[hash % PALETTE.length]!;
}

// A second line of a job's own plot.
export const otherThan = (color: string): string => (color === PALETTE[1] ? PALETTE[0]! : PALETTE[1]!);

// Several jobs in one plot: no two of them alike while there are colours left.
export function colorsOf(ids: readonly string[]): string[] {
  const taken = new Set<string>();
  return ids.map((id) => {
    const own = PALETTE.indexOf(colorOf(id));
    const order = PALETTE.map((_, offset) => PALETTE[(own + offset) % PALETTE.length]!);
    const color = order.find((each) => !taken.has(each)) ?? order[0]!;
    taken.add(color);
    return color;
  });
}
