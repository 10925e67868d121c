import assert from "node:assert/strict";
import { test } from "node:test";
import { type DeviceMemory, extended, lastTime, peakOf } from "../src/pages/machines/readings";

const DAY = 86_400;

function readings(first: number, used: number[], job?: string): DeviceMemory {
  const time = used.map((_, index) => first + 30 * index);
  const leases = job ? [{ start: first, end: time.at(-1)!, jobs: [job], jobs_of_other_owners: 0 }] : [];
  return { device: 0, total_bytes: 100, time, used_bytes: used, leases };
}

test("new readings follow those that were there", () => {
  const [found] = extended([readings(1000, [1, 2])], [readings(1060, [3])], DAY);
  assert.deepEqual(found!.time, [1000, 1030, 1060]);
  assert.deepEqual(found!.used_bytes, [1, 2, 3]);
  assert.equal(lastTime([found!]), 1060);
});

test("holder that goes on stays one", () => {
  const [same] = extended([readings(1000, [1, 9], "job_a")], [readings(1060, [3], "job_a")], DAY);
  assert.deepEqual(
    same!.leases.map(({ start, end }) => [start, end]),
    [[1000, 1060]],
  );
  assert.equal(peakOf(same!, same!.leases[0]!), 9);
  const [two] = extended([readings(1000, [1], "job_a")], [readings(1030, [3], "job_b")], DAY);
  assert.deepEqual(
    two!.leases.map((each) => each.jobs),
    [["job_a"], ["job_b"]],
  );
});

test("readings before the last day are dropped", () => {
  const [found] = extended([readings(1000, [1, 2], "job_a")], [readings(1020 + DAY, [3])], DAY);
  assert.deepEqual(found!.used_bytes, [2, 3]);
  const [later] = extended([readings(1000, [1, 2], "job_a")], [readings(5000 + DAY, [3])], DAY);
  assert.deepEqual([later!.used_bytes, later!.leases], [[3], []]);
});

test("device that is new or gone is kept", () => {
  assert.deepEqual(extended([readings(1000, [1])], [], DAY), [readings(1000, [1])]);
  assert.deepEqual(extended([], [readings(1000, [1])], DAY), [readings(1000, [1])]);
});
