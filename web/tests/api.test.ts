import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { ApiError, get } from "../src/api";

// A server that sends the first half of an answer, and then `rest`.
async function withHalfAnAnswer(rest: (cut: () => void) => void, run: () => Promise<void>): Promise<void> {
  const server = createServer((_, answer) => {
    answer.writeHead(200, { "content-type": "application/json", "content-length": "100" });
    answer.write('{"data": [');
    rest(() => answer.destroy());
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const own = globalThis.fetch;
  // A page's fetch knows its origin.
  globalThis.fetch = (path, init) => own(`http://127.0.0.1:${server.address().port}${String(path)}`, init);
  try {
    await run();
  } finally {
    globalThis.fetch = own;
    server.closeAllConnections();
    server.close();
  }
}

async function failureOf(work: Promise<unknown>): Promise<Error> {
  try {
    await work;
  } catch (error) {
    return error as Error;
  }
  throw new Error("it succeeded");
}

test("an answer that was cut off is no answer", async () => {
  await withHalfAnAnswer(
    (cut) => setTimeout(cut, 50),
    async () => {
      const error = await failureOf(get("/jobs"));
      assert.ok(error instanceof ApiError);
      assert.equal(error.code, "unreachable");
    },
  );
});

test("a request that is given up while its answer arrives gives nothing", async () => {
  const abort = new AbortController();
  await withHalfAnAnswer(
    () => setTimeout(() => abort.abort(), 50),
    async () => assert.equal((await failureOf(get("/jobs", abort.signal))).name, "AbortError"),
  );
});
