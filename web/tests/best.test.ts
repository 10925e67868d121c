import assert from "node:assert/strict";
import { test } from "node:test";
import { bestOf } from "../src/pages/sweeps/best";
import type { Sweep } from "../src/types";

type Run = Sweep["jobs"][number];
const run = (id: string, more: Partial<Run>): Run => ({ id, values: {}, status: "succeeded", loss: 1, eval_loss: null, step: 1, total_steps: 1, ...more });

test("evaluation decides before the loss", () => {
  assert.equal(bestOf([run("a", { loss: 0.1 }), run("b", { loss: 2, eval_loss: 1.5 })]), "b");
});

test("a job that failed is not the best", () => {
  assert.equal(bestOf([run("a", { loss: 0.1, status: "failed" }), run("b", {})]), "b");
});

test("without a loss none is the best", () => {
  assert.equal(bestOf([run("a", { loss: null, status: "running" })]), null);
});
