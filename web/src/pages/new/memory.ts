import { type Memory, PARTS, type Part } from "./plan";

// The parts that are there at the same time, each where the one before it ends. Where gradients come as activations
// go, the total counts only the larger of the two.
export function stacked(memory: Memory): { part: Part; start: number; size: number }[] {
  const sum = PARTS.reduce((all, part) => all + memory[part], 0);
  const smaller: Part = memory.gradients < memory.activations ? "gradients" : "activations";
  const counted = PARTS.filter((part) => memory[part] > 0 && !(part === smaller && sum > memory.total));
  let end = 0;
  return counted.map((part) => {
    const start = end;
    end += memory[part];
    return { part, start, size: memory[part] };
  });
}
