import assert from "node:assert/strict";
import { test } from "node:test";
import { divided, fieldAt, formOf, type Schema } from "../src/recipe/schema";
import { meant, shown } from "../src/recipe/text";
import { withMethod } from "../src/recipe/methods";
import { compact, forCopy, merge, read, write } from "../src/recipe/values";

const text: Schema = { type: "string" };
const source: Schema = { anyOf: [text, { $ref: "#/$defs/Source" }] };
const schema: Schema = {
  $defs: {
    Source: {
      type: "object",
      required: ["path"],
      properties: { path: text, format: { enum: ["auto", "text"], default: "auto" }, sha256: { anyOf: [text, { type: "null" }], default: null } },
    },
    Schedule: {
      type: "object",
      properties: {
        epochs: { anyOf: [{ type: "number", exclusiveMinimum: 0, maximum: 1000 }, { type: "null" }], default: null },
        max_steps: { anyOf: [{ type: "integer", minimum: 1, maximum: 2147483647 }, { type: "null" }], default: null },
      },
    },
    Method: {
      type: "object",
      properties: {
        type: { enum: ["sft", "dpo", "simpo"], default: "sft" },
        beta: { anyOf: [{ type: "number" }, { type: "null" }], default: null },
        loss: { anyOf: [{ enum: ["sigmoid", "ipo"] }, { type: "null" }], default: null },
      },
    },
    Optimizer: {
      type: "object",
      properties: { learning_rate: { type: "number", default: 0.0002 }, weight_decay: { type: "number", default: 0 } },
    },
    Adapter: {
      type: "object",
      description: "LoRA.",
      properties: {
        r: { type: "integer", minimum: 1, maximum: 4096, default: 16 },
        targets: { anyOf: [{ const: "all-linear", type: "string" }, text, { type: "array" }], default: "all-linear" },
        saved: { type: "array", default: [] },
        ranks: { type: "object", default: {} },
        dora: { type: "boolean", default: false },
        size: { anyOf: [{ const: "auto", type: "string" }, { type: "integer" }], default: 8 },
        norm: { anyOf: [{ type: "number" }, { type: "null" }], default: 1 },
      },
    },
  },
  properties: {
    model: text,
    dataset: source,
    schedule: { $ref: "#/$defs/Schedule", default: { epochs: 3, max_steps: null } },
    adapter: { $ref: "#/$defs/Adapter", default: { r: 16, targets: "all-linear", saved: [], ranks: {}, dora: false, size: 8, norm: 1 } },
    method: { anyOf: [text, { $ref: "#/$defs/Method" }], default: { type: "sft", beta: null, loss: null } },
    optimizer: { $ref: "#/$defs/Optimizer", default: { learning_rate: 0.0002, weight_decay: 0 } },
    bits: { anyOf: [{ type: "integer", enum: [4, 8] }, { type: "null" }], default: null },
  },
  required: ["model", "dataset"],
};
const form = formOf(schema);
const at = (path: string) => fieldAt(form, path)!;

test("fields have the kinds of their schemas", () => {
  const kinds = Object.fromEntries(form.sections.flatMap((section) => section.fields).map((field) => [field.path, field.kind]));
  assert.deepEqual(kinds, {
    model: "text",
    bits: "choice",
    "dataset.path": "text",
    "dataset.format": "choice",
    "dataset.sha256": "text",
    "schedule.epochs": "number",
    "schedule.max_steps": "number",
    "adapter.r": "number",
    "adapter.targets": "text",
    "adapter.saved": "list",
    "adapter.ranks": "json",
    "adapter.dora": "switch",
    "adapter.size": "number",
    "adapter.norm": "number",
    "method.type": "choice",
    "method.beta": "number",
    "method.loss": "choice",
    "optimizer.learning_rate": "number",
    "optimizer.weight_decay": "number",
  });
  assert.deepEqual([at("schedule.epochs").least, at("schedule.epochs").most], ["> 0", "≤ 1000"]);
  assert.deepEqual([at("schedule.max_steps").least, at("schedule.max_steps").most], ["≥ 1", ""]);
  assert.equal(at("schedule.epochs").usual, 3);
  assert.deepEqual(at("adapter.size").choices, ["auto"]);
  assert.deepEqual([at("model").required, at("dataset").required, at("bits").required], [true, true, false]);
  assert.equal(form.sections.find((section) => section.name === "adapter")!.help, "LoRA.");
});

test("every field is either everyday or in a section", () => {
  const { everyday, rest } = divided(form);
  assert.deepEqual(everyday.map((field) => field.path), ["model", "dataset.path", "schedule.epochs", "optimizer.learning_rate", "adapter.r"]);
  assert.equal(everyday.length + rest.flatMap((section) => section.fields).length, form.sections.flatMap((section) => section.fields).length);
});

test("defaults are left out and the rest stays", () => {
  const whole = {
    model: "tiny",
    dataset: { path: "a.jsonl", format: "auto", sha256: null },
    schedule: { epochs: 3, max_steps: null },
    adapter: { r: 8, targets: "all-linear", saved: [], ranks: {}, dora: false, size: 8, norm: null },
    bits: null,
    unknown: 1,
  };
  assert.deepEqual(compact(whole, form), { model: "tiny", dataset: "a.jsonl", adapter: { r: 8, norm: null }, unknown: 1 });
});

test("epochs beside other fields of the schedule stay", () => {
  const recipe = { schedule: { epochs: 3, max_steps: 10 } };
  assert.deepEqual(compact(recipe, form), recipe);
});

test("a copy drops what the API filled in", () => {
  assert.deepEqual(forCopy({ model: "m", dataset: { path: "a", format: "text", sha256: "0f" } }, form), {
    model: "m",
    dataset: { path: "a", format: "text" },
  });
  assert.deepEqual(forCopy({ model: "m", dataset: "a" }, form), { model: "m", dataset: "a" });
});

const optimizer = { learning_rate: 0.0002, weight_decay: 0 };
const asStored = (type: string, options: Record<string, unknown>) => ({ method: { type, beta: null, loss: null, ...options }, optimizer });

test("a written learning rate stays, since its default depends on the method", () => {
  const kept = { optimizer: { learning_rate: 0.0002 } };
  assert.deepEqual(compact({ method: "dpo", optimizer }, form), { method: "dpo", ...kept });
  assert.deepEqual(compact({ method: { type: "dpo" }, optimizer }, form), { method: "dpo", ...kept });
  assert.deepEqual(compact(withMethod(compact({ optimizer }, form), "dpo"), form), { method: "dpo", ...kept });
  assert.deepEqual(compact({ method: "dpo", optimizer: { weight_decay: 0 } }, form), { method: "dpo" });
});

test("a copy leaves out the learning rate only where it is the method's default", () => {
  assert.deepEqual(forCopy(asStored("sft", {}), form), {});
  assert.deepEqual(forCopy({ method: "sft", optimizer: { learning_rate: 0.0001, weight_decay: 0 } }, form), { optimizer: { learning_rate: 0.0001 } });
  assert.deepEqual(forCopy(asStored("dpo", { beta: 0.3, loss: "ipo" }), form), {
    method: { type: "dpo", beta: 0.3, loss: "ipo" },
    optimizer: { learning_rate: 0.0002 },
  });
});

test("another method has no options that it lacks, nor defaults of the one before", () => {
  const all = { beta: 0.3, loss: "ipo", label_smoothing: 0.1, sft_weight: 1 };
  assert.deepEqual(withMethod({ method: { type: "dpo", ...all } }, "simpo"), { method: { type: "simpo", beta: 0.3 } });
  assert.deepEqual(withMethod({ method: { type: "dpo", ...all, beta: 0.1 } }, "simpo"), { method: { type: "simpo" } });
  assert.deepEqual(withMethod({ method: { type: "simpo", beta: 2, margin: 3 } }, "kto"), { method: { type: "kto" } });
  assert.deepEqual(withMethod({ method: { type: "kto", desirable_weight: 2, undesirable_weight: 1 } }, "sft"), { method: { type: "sft" } });
  assert.deepEqual(withMethod({ method: { type: "dpo", ...all } }, "dpo"), { method: { type: "dpo", ...all } });
  assert.deepEqual(withMethod({ method: "dpo", model: "m" }, "orpo"), { method: { type: "orpo" }, model: "m" });
  assert.deepEqual(withMethod({}, "dpo"), { method: { type: "dpo" } });
});

test("what no method has stays for the API to refuse", () => {
  const recipe = { method: { type: "ppo", beta: 0.1, unknown: 1 } };
  assert.deepEqual(withMethod(recipe, "dpo"), { method: { type: "dpo", beta: 0.1, unknown: 1 } });
});

test("a dataset is read and written in both of its forms", () => {
  assert.equal(read({ dataset: "a" }, "dataset.path"), "a");
  assert.deepEqual(write({ dataset: "a" }, "dataset.format", "text"), { dataset: { path: "a", format: "text" } });
  assert.deepEqual(compact(write({ dataset: { path: "a", format: "text" } }, "dataset.format", undefined), form), { dataset: "a" });
});

test("a suggestion changes only its own fields", () => {
  assert.deepEqual(merge({ adapter: { r: 8 }, model: "m" }, { adapter: { dora: true }, bits: 4 }), {
    adapter: { r: 8, dora: true },
    model: "m",
    bits: 4,
  });
});

test("texts and values agree in both directions", () => {
  const values: [string, unknown][] = [
    ["adapter.r", 8],
    ["adapter.size", "auto"],
    ["adapter.norm", null],
    ["adapter.targets", ["q_proj", "v_proj"]],
    ["adapter.targets", "[a-z]+_proj"],
    ["adapter.saved", ["lm_head", "embed_tokens"]],
    ["adapter.saved", ["a,b"]],
    ["adapter.ranks", { q_proj: 32 }],
    ["model", "42"],
  ];
  for (const [path, value] of values) assert.deepEqual(meant(at(path), shown(at(path), value)), value, path);
  assert.equal(meant(at("adapter.r"), " "), undefined);
  assert.equal(meant(at("adapter.r"), "many"), "many");
  assert.equal(meant(at("adapter.r"), "1e999"), "1e999");
  assert.equal(meant(at("adapter.norm"), "null"), null);
  assert.equal(shown(at("schedule.epochs"), null), "");
});
