import { duration, memory, moment } from "../../format";
import type { ExitReport as Report } from "../../types";
import { t } from "../../words";

// How the processes of the latest attempt ended, in words.
export function ExitReport({ report }: { report: Report }) {
  const killed = report.processes.filter((each) => each.killed);
  const devices = Object.keys(report.memory_after);
  return (
    <section>
      <h2>{t("exitReport")}</h2>
      <p>
        {report.stop_requested === null
          ? t("exit.byThemselves", { time: moment(report.ended * 1000) })
          : t("exit.stopped", { time: moment(report.stop_requested * 1000), seconds: report.seconds < 10 ? t("unit.seconds", { n: report.seconds.toFixed(1) }) : duration(report.seconds) })}
      </p>
      <p>
        {killed.length === 0
          ? t("exit.noneKilled", { n: report.processes.length })
          : t("exit.killed", { n: report.processes.length, names: killed.map((each) => `${each.name} (${each.pid})`).join(", ") })}
      </p>
      {devices.map((number) => (
        <p class="number">
          {t("exit.memory", { number, before: memory(report.memory_before[number] ?? 0), after: memory(report.memory_after[number]!) })}
        </p>
      ))}
    </section>
  );
}
