// The memory of a machine and its GPUs over the last day, and who held them.
import { useEffect, useMemo, useState } from "preact/hooks";
import { get } from "../../api";
import { colorOf } from "../../colors";
import { memory, moment } from "../../format";
import { Problem } from "../../parts/Problem";
import { Chart } from "../../plot/Chart";
import type { Content } from "../../plot/plot";
import { href } from "../../route";
import type { Worker } from "../../types";
import { t } from "../../words";
import { type DeviceMemory, type Lease, extended, lastTime, peakOf } from "./readings";

const POINTS = 600;
const EVERY_MS = 30_000;
const KEPT_SECONDS = 86_400;
const GIB = 2 ** 30;
const SHOWN_LEASES = 5;
const LINE = "#0072b2";

export function Memory({ worker }: { worker: Worker }) {
  const { devices, error } = useReadings(worker.name);
  if (error !== undefined && !devices) return <Problem error={error} />;
  if (!devices) return <p class="quiet">{t("loading")}</p>;
  if (devices.length === 0) return <p class="quiet">{t("memory.none")}</p>;
  return (
    <div class="charts">
      {devices.map((each) => (
        <OfDevice key={each.device} of={each} title={titleOf(each, worker)} />
      ))}
    </div>
  );
}

// All at first, and then only what is new.
function useReadings(worker: string): { devices?: DeviceMemory[]; error?: unknown } {
  const [found, setFound] = useState<{ devices?: DeviceMemory[]; error?: unknown }>({});
  useEffect(() => {
    const abort = new AbortController();
    let known: DeviceMemory[] = [];
    const read = () => {
      const query = new URLSearchParams({ after: String(lastTime(known)), points: String(POINTS) });
      get<{ data: DeviceMemory[] }>(`/workers/${encodeURIComponent(worker)}/memory?${query}`, abort.signal).then(
        ({ data }) => {
          known = extended(known, data, KEPT_SECONDS);
          setFound({ devices: known });
        },
        (error: unknown) => abort.signal.aborted || setFound((before) => ({ ...before, error })),
      );
    };
    read();
    const timer = setInterval(() => document.hidden || read(), EVERY_MS);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [worker]);
  return found;
}

function titleOf({ device }: DeviceMemory, worker: Worker): string {
  if (device === null) return t("memory.machine");
  const name = worker.devices.find((each) => each.number === device)?.name;
  return `${device}${name ? ` · ${name}` : ""}`;
}

function OfDevice({ of, title }: { of: DeviceMemory; title: string }) {
  const content = useMemo((): Content => {
    const used = of.used_bytes.map((bytes) => bytes / GIB);
    const total = of.total_bytes;
    const lines = [{ label: t("memory.used"), color: LINE, values: used }];
    const most = { label: t("memory.total"), color: "#7f8792", values: used.map(() => (total ?? 0) / GIB), dash: [4, 4] };
    // The list below names them, in the same colours.
    const marks = of.leases.flatMap(({ start, jobs }) => jobs.slice(0, 1).map((job) => ({ x: start, label: "", color: colorOf(job) })));
    return { x: of.time, lines: total === null ? lines : [...lines, most], marks };
  }, [of, t("memory.used")]);
  return (
    <div>
      <Chart title={`${title} (GiB)`} content={content} axis={{ label: t("time"), time: true, whole: false }} height={180} />
      <Leases of={of} />
    </div>
  );
}

function Leases({ of }: { of: DeviceMemory }) {
  const held = of.leases.slice(-SHOWN_LEASES).reverse();
  if (held.length === 0) return <p class="quiet">{t("memory.unheld")}</p>;
  return (
    <ul class="leases" aria-label={t("memory.holders")}>
      {held.map((lease) => (
        <li key={lease.start}>
          <Jobs of={lease} />
          <span class="quiet number">
            {moment(lease.start * 1000)} – {moment(lease.end * 1000)}
          </span>
          <span class="number">{t("memory.peak", { size: memory(peakOf(of, lease)) })}</span>
        </li>
      ))}
    </ul>
  );
}

function Jobs({ of: { jobs, jobs_of_other_owners: others } }: { of: Lease }) {
  return (
    <span>
      {jobs.map((job) => (
        <>
          <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">
            <rect width="10" height="10" rx="2" fill={colorOf(job)} />
          </svg>{" "}
          <a href={href(["jobs", job])}>{job}</a>{" "}
        </>
      ))}
      {others > 0 && t("otherOwners", { n: others })}
    </span>
  );
}
