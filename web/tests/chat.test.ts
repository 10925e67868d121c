import assert from "node:assert/strict";
import { test } from "node:test";
import { withOpenTag, withoutThoughts } from "../src/pages/chat/messages";
import { isComposing } from "../src/parts/composing";

test("thoughts that the template opened get their tag", () => {
  assert.equal(withOpenTag("hm</think>\nYes."), "<think>\nhm</think>\nYes.");
  for (const whole of ["Yes.", "<think>hm</think>Yes.", "\n<think>\nhm", "<think>a</think>b</think>"]) assert.equal(withOpenTag(whole), whole);
  assert.deepEqual(withoutThoughts(withOpenTag("hm</think>\nYes.")), { thoughts: "hm", answer: "Yes." });
});

test("the key that ends a word of an input method is one of its own", () => {
  const key = (isComposing: boolean, keyCode: number) => ({ isComposing, keyCode }) as KeyboardEvent;
  assert.deepEqual([key(true, 13), key(false, 229), key(false, 13)].map(isComposing), [true, true, false]);
});
