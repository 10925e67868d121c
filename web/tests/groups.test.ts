import assert from "node:assert/strict";
import { test } from "node:test";
import { bestOf } from "../src/pages/evaluations/groups";

test("the best score is the lowest loss and the highest of the others", () => {
  assert.equal(bestOf("loss", [0.5, 0.25, 0.25]), 0.25);
  assert.equal(bestOf("rouge_l", [0.5, 0.25]), 0.5);
});

test("no score is the best where all are equal", () => {
  assert.equal(bestOf("exact_match", [0.5, 0.5]), null);
});
