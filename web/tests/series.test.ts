import assert from "node:assert/strict";
import { test } from "node:test";
import { aligned, smooth, thinned } from "../src/plot/series";

test("thinning keeps the ends of a curve's range", () => {
  const x = Array.from({ length: 10_000 }, (_, index) => index);
  const values = x.map((step) => (step === 4321 ? 99 : step === 77 ? -99 : Math.sin(step)));
  const found = thinned(x, values, 500);
  assert.ok(found.x.length <= 502);
  assert.ok(found.values.includes(99) && found.values.includes(-99));
  assert.deepEqual(found.x, found.x.toSorted((a, b) => a - b));
  assert.deepEqual(found.values, found.x.map((step) => values[step]));
});

test("a short curve stays as it is", () => {
  assert.deepEqual(thinned([1, 2, 3], [5, null, 4], 600), { x: [1, 2, 3], values: [5, null, 4] });
});

test("curves of several jobs have one axis", () => {
  const found = aligned([
    { x: [1, 3, 5], values: [0.1, null, 0.5] },
    { x: [1, 2], values: [9, 8] },
    { x: [], values: [] },
  ]);
  assert.deepEqual(found, { x: [1, 2, 3, 5], columns: [[0.1, null, null, 0.5], [9, 8, null, null], [null, null, null, null]] });
});

test("a smoothed curve begins where the raw one does", () => {
  assert.deepEqual(smooth([2, null, 2], 0.9), [2, null, 2]);
});
