import assert from "node:assert/strict";
import { test } from "node:test";
import { bestOf, deciding } from "../src/pages/sweeps/best";
import type { Sweep } from "../src/types";

type Run = Sweep["jobs"][number];
const run = (id: string, more: Partial<Run>): Run => ({ id, values: {}, status: "succeeded", loss: 1, eval_loss: null, reward_accuracy: null, reward_margin: null, step: 1, total_steps: 1, ...more });

test("evaluation decides before the loss", () => {
  assert.equal(bestOf([run("a", { loss: 0.1 }), run("b", { loss: 2, eval_loss: 1.5 })]), "b");
});

test("a job that failed is not the best", () => {
  assert.equal(bestOf([run("a", { loss: 0.1, status: "failed" }), run("b", {})]), "b");
});

test("without a loss none is the best", () => {
  assert.equal(bestOf([run("a", { loss: null, status: "running" })]), null);
});

test("rewards decide before the losses, by their accuracy and then their margin", () => {
  const rewards = (reward_accuracy: number, reward_margin: number | null, eval_loss = 1) => ({ reward_accuracy, reward_margin, eval_loss });
  assert.equal(bestOf([run("a", rewards(0.6, 9)), run("b", rewards(0.9, 0.1, 5)), run("c", rewards(0.8, 5))]), "b");
  assert.equal(bestOf([run("a", rewards(0.9, 0.1)), run("b", rewards(0.9, 0.3, 5)), run("c", rewards(0.9, 0.2))]), "b");
  assert.equal(bestOf([run("a", rewards(0.9, -0.1)), run("b", rewards(0.9, null)), run("c", rewards(0.9, 0))]), "b");
  assert.equal(bestOf([run("a", { eval_loss: 0.1 }), run("b", rewards(0.1, -2, 5)), run("c", { loss: 0.01 })]), "b");
});

test("the deciding result is the first that any has", () => {
  const unknown = { loss: null, eval_loss: null, reward_accuracy: null, reward_margin: null };
  assert.equal(deciding([unknown]), "loss");
  assert.equal(deciding([unknown, { ...unknown, loss: 1, eval_loss: 2 }]), "eval_loss");
  assert.equal(deciding([{ ...unknown, eval_loss: 2 }, { ...unknown, eval_loss: 3, reward_accuracy: 0 }]), "reward_accuracy");
});
