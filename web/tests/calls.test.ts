import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import * as calls from "../src/calls";
import { type Call, asCommand, asCurl } from "../src/calls";
import expected from "./calls.json";

const ORIGIN = "http://127.0.0.1:8000";
const [JOB, SWEEP, DATASET, KEY, WEBHOOK, MESSAGE, EVALUATION, RATING] = ["job_", "sweep_", "file-", "key_", "wh_", "msg_", "eval_", "rat_"].map((prefix) => prefix + "0".repeat(24)) as [string, string, string, string, string, string, string, string];
const RECIPE = { model: "tiny", dataset: "rows.jsonl", name: "it's" };

const EXAMPLES: Record<string, Call[]> = {
  showJob: [calls.showJob(JOB)],
  pauseJob: [calls.pauseJob(JOB)],
  resumeJob: [calls.resumeJob(JOB)],
  cancelJob: [calls.cancelJob(JOB)],
  retryJob: [calls.retryJob(JOB)],
  deleteJob: [calls.deleteJob(JOB)],
  exportJob: [calls.exportJob(JOB, "checkpoint-5.tar", "portable")],
  pushJob: [
    calls.pushJob(JOB, { repo: "org/name", secret: "hub", artifact: "adapter.tar", private: true, revision: null }),
    calls.pushJob(JOB, { repo: "org/name", secret: "mine", artifact: "merged.tar", private: false, revision: "v2" }),
  ],
  evaluateJob: [
    calls.evaluateJob(JOB, { dataset: DATASET, checkpoint: null, limit: 200, max_new_tokens: 256 }),
    calls.evaluateJob(JOB, { dataset: "held out.jsonl", checkpoint: 20, limit: 50, max_new_tokens: 16 }),
  ],
  deleteEvaluation: [calls.deleteEvaluation(JOB, EVALUATION)],
  rateAnswer: [calls.rateAnswer(JOB, { messages: [{ role: "user", content: "it's" }], answer: { role: "assistant", content: "Yes." }, model: "tiny", label: true })],
  deleteRating: [calls.deleteRating(JOB, RATING)],
  downloadRatings: [calls.downloadRatings(JOB, "kto"), calls.downloadRatings(JOB, "dpo")],
  cloneJob: [calls.cloneJob(JOB, RECIPE)],
  submitJob: [calls.submitJob(JSON.stringify(RECIPE))],
  chatWith: [
    calls.chatWith(JOB, { key: "base", step: null }, { messages: [{ content: "What is LoRA?" }], temperature: 0.7, seed: 0 }),
    calls.chatWith(JOB, { key: "step-20", step: 20 }, { messages: [{ content: "it's" }], temperature: 0, seed: 7 }),
  ],
  showSweep: [calls.showSweep(SWEEP)],
  createSweep: [calls.createSweep(RECIPE, { "adapter.r": [8, 16], "adapter.target_modules": ["all-linear", ["q_proj"]] })],
  stopSweep: [calls.stopSweep(SWEEP, null), calls.stopSweep(SWEEP, JOB)],
  uploadDataset: [calls.uploadDataset("my rows.jsonl")],
  deleteDataset: [calls.deleteDataset(DATASET)],
  createKey: [calls.createKey({ owner: "anna", name: "Anna's laptop", admin: false, days: null }), calls.createKey({ owner: "boss", name: null, admin: true, days: 30 }, Date.UTC(2026, 0, 1))],
  revokeKey: [calls.revokeKey(KEY)],
  setLimits: [calls.setLimits("anna", { running_jobs: 2, queued_jobs: null, bytes: 5000 }), calls.setLimits("*", { running_jobs: 0, queued_jobs: 50, bytes: null })],
  setSecret: [calls.setSecret("wandb", "...")],
  deleteSecret: [calls.deleteSecret("wandb")],
  addWebhook: [calls.addWebhook("https://example.com/hook?a=1&b=2", ["job.failed", "job.succeeded"])],
  testWebhook: [calls.testWebhook(WEBHOOK)],
  enableWebhook: [calls.enableWebhook(WEBHOOK)],
  disableWebhook: [calls.disableWebhook(WEBHOOK)],
  deleteWebhook: [calls.deleteWebhook(WEBHOOK)],
  retryDelivery: [calls.retryDelivery(MESSAGE)],
};

test("every action has a curl call, and a command if there is one, that are known to work", () => {
  const made = Object.entries(calls).flatMap(([name, each]) => (typeof each === "function" && !name.startsWith("as") ? [name] : []));
  assert.deepEqual(Object.keys(EXAMPLES).toSorted(), made.toSorted());
  const written = Object.values(EXAMPLES)
    .flat()
    .map((call) => {
      const command = asCommand(call, ORIGIN);
      return { curl: asCurl(call, ORIGIN), ...(command !== undefined && { command }) };
    });
  // tests/finetuned/test_copied_calls.py holds that the API and the command take what is in this file.
  if (process.env.UPDATE) writeFileSync("tests/calls.json", `${JSON.stringify(written, null, 2)}\n`);
  else assert.deepEqual(written, expected, "on a change: UPDATE=1 npm --prefix web test");
});

test("command for another service names it before what it reads", () => {
  const lines = asCommand(calls.submitJob("{}"), "https://gpu.example.com")?.split("\n");
  assert.deepEqual(lines, ["finetuned submit - --watch --url https://gpu.example.com <<'JSON'", "{}", "JSON"]);
});

test("no copied call holds a key", () => {
  for (const call of Object.values(EXAMPLES).flat()) {
    assert.match(asCurl(call, ORIGIN), /-H "Authorization: Bearer \$FINETUNED_API_KEY"/);
    assert.doesNotMatch(asCommand(call, ORIGIN) ?? "", /--key/);
  }
});
