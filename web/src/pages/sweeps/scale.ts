// Where a value lies on an axis, from 0 to 1.
export type Scale = {
  place: (value: unknown) => number | null;
  ticks: { place: number; value: unknown }[];
};

const MANY = 12;

// Numbers lie by their size, or by its logarithm where the largest is a hundred times the least; others in the order in
// which they come.
export function scaleOf(values: readonly unknown[]): Scale {
  const known: unknown[] = [...new Set(values.filter((value) => value != null).map(comparable))];
  const numbers = known.filter((value) => typeof value === "number");
  if (numbers.length < known.length) {
    const place = (value: unknown) => {
      const index = known.indexOf(comparable(value));
      return index < 0 ? null : middle(index, known.length);
    };
    return { place, ticks: known.map((value, index) => ({ place: middle(index, known.length), value })) };
  }
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const bend = least > 0 && most / least >= 100 ? Math.log : (value: number) => value;
  const place = (value: unknown) => {
    if (typeof value !== "number") return null;
    return least === most ? 0.5 : (bend(value) - bend(least)) / (bend(most) - bend(least));
  };
  const shown = numbers.length <= MANY ? numbers : [least, most];
  return { place, ticks: shown.map((value) => ({ place: place(value)!, value })) };
}

const middle = (index: number, count: number): number => (count === 1 ? 0.5 : index / (count - 1));

const comparable = (value: unknown): unknown => (typeof value === "object" ? JSON.stringify(value) : value);
