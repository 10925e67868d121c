// A machine's memory as the API lists it, and what has come since.
export type Lease = { start: number; end: number; jobs: string[]; jobs_of_other_owners: number };
export type DeviceMemory = { device: number | null; total_bytes: number | null; time: number[]; used_bytes: number[]; leases: Lease[] };

// The readings of `later` come after those of `earlier`.
export function extended(earlier: readonly DeviceMemory[], later: readonly DeviceMemory[], keep: number): DeviceMemory[] {
  const devices = [...new Set([...earlier, ...later].map((each) => each.device))];
  return devices.map((device) => {
    const [before, after] = [earlier, later].map((list) => list.find((each) => each.device === device));
    if (!before || !after) return (before ?? after)!;
    const time = [...before.time, ...after.time];
    const first = time.findIndex((each) => each >= time.at(-1)! - keep);
    return {
      device,
      total_bytes: after.total_bytes,
      time: time.slice(first),
      used_bytes: [...before.used_bytes, ...after.used_bytes].slice(first),
      leases: joined([...before.leases, ...after.leases]).filter((lease) => lease.end >= time[first]!),
    };
  });
}

// One that went on while the page read is one.
function joined(leases: readonly Lease[]): Lease[] {
  const found: Lease[] = [];
  for (const lease of leases) {
    const last = found.at(-1);
    const same = last && String(last.jobs) === String(lease.jobs) && last.jobs_of_other_owners === lease.jobs_of_other_owners;
    if (same && lease.start - last.end < GAP_SECONDS) found[found.length - 1] = { ...last, end: lease.end };
    else found.push(lease);
  }
  return found;
}

// Two readings are 30 s apart.
const GAP_SECONDS = 45;

export const lastTime = (devices: readonly DeviceMemory[]): number => Math.max(0, ...devices.map((each) => each.time.at(-1) ?? 0));

export function peakOf({ time, used_bytes }: DeviceMemory, { start, end }: Lease): number {
  return Math.max(0, ...used_bytes.filter((_, index) => time[index]! >= start && time[index]! <= end));
}
