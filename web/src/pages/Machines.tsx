import { useEffect } from "preact/hooks";
import { get } from "../api";
import { bytes, memory, moment } from "../format";
import { useLoaded } from "../parts/load";
import { Problem } from "../parts/Problem";
import { Seen } from "../parts/Seen";
import { href } from "../route";
import type { Device, Worker } from "../types";
import { t } from "../words";
import { Memory } from "./machines/Memory";

const EVERY_MS = 5000;

export function Machines() {
  const { data, error, reload } = useLoaded((signal) => get<{ data: Worker[] }>("/workers", signal), []);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || reload(), EVERY_MS);
    return () => clearInterval(timer);
  }, [reload]);
  if (!data) return error === undefined ? <p class="quiet">{t("loading")}</p> : <Problem error={error} again={reload} />;
  return (
    <>
      <h1>{t("machines")}</h1>
      {data.data.length === 0 && (
        <section class="empty">
          <h2>{t("noMachines")}</h2>
          <p>{t("noMachinesHelp")}</p>
          <pre>python -m worker</pre>
        </section>
      )}
      {data.data.map((worker) => (
        <section key={worker.name} class="machine" aria-label={worker.name}>
          <h2>
            {worker.name} <span class={`pill ${worker.status}`}>{t(`worker.${worker.status}`)}</span>
          </h2>
          <p class="quiet">
            {worker.address} · {moment(worker.seen_at)}
            {worker.disk && ` · ${t("diskFree", { free: bytes(worker.disk.free_bytes), total: bytes(worker.disk.total_bytes) })}`}
          </p>
          {worker.disk?.low && <p class="problem">{t("diskLow")}</p>}
          <table class="plain devices">
            <thead>
              <tr>
                <th scope="col">{t("device")}</th>
                <th scope="col">{t("status")}</th>
                <th scope="col">{t("memoryShort")}</th>
                <th scope="col">{t("use")}</th>
              </tr>
            </thead>
            <tbody>
              {worker.devices.map((device) => (
                <DeviceRow device={device} />
              ))}
            </tbody>
          </table>
          <h3>{t("memory.title")}</h3>
          <Seen height={260}>
            <Memory worker={worker} />
          </Seen>
        </section>
      ))}
    </>
  );
}

function DeviceRow({ device }: { device: Device }) {
  return (
    <tr>
      <th scope="row">
        {device.number} · {device.name}
      </th>
      <td>
        <span class={`pill ${device.status}`}>{t(`device.${device.status}`)}</span>
      </td>
      <td class="number">{device.memory_bytes === null ? "–" : memory(device.memory_bytes)}</td>
      <td>
        {device.jobs.map((id) => (
          <>
            <a href={href(["jobs", id])}>{id}</a>{" "}
          </>
        ))}
        {device.jobs_of_other_owners > 0 && t("otherOwners", { n: device.jobs_of_other_owners })} {device.reason}
      </td>
    </tr>
  );
}
