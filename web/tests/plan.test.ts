import assert from "node:assert/strict";
import { test } from "node:test";
import { runs } from "../src/pages/new/datasets";
import { stacked } from "../src/pages/new/memory";

const memory = { weights: 50, adapter: 2, gradients: 10, optimizer: 4, activations: 30, logits: 5, communication_buffers: 0, overhead: 9 };

test("parts of memory add up to the total", () => {
  const whole = stacked({ ...memory, total: 110 });
  assert.equal(whole.reduce((sum, { size }) => sum + size, 0), 110);
  assert.ok(!whole.some(({ part }) => part === "communication_buffers"));
  const overlapping = stacked({ ...memory, total: 100 });
  assert.ok(!overlapping.some(({ part }) => part === "gradients"));
  assert.deepEqual(overlapping.at(-1), { part: "overhead", start: 91, size: 9 });
});

test("neighbouring tokens of one kind are one run", () => {
  const tokens = [["a", false], ["b", false], ["c", true], ["d", true], ["e", false]] as const;
  const text = { kept: 3, tokens: tokens.map(([piece, supervised]) => ({ text: piece, supervised })) };
  assert.deepEqual(runs(text), [
    { text: "ab", learned: false, cut: false },
    { text: "c", learned: true, cut: false },
    { text: "d", learned: true, cut: true },
    { text: "e", learned: false, cut: true },
  ]);
});
