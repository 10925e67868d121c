import { asCommand, submitJob } from "../calls";
import { Copy } from "../parts/Copy";
import { go } from "../route";
import { t } from "../words";

const FIRST = asCommand(submitJob('{"model": "MODEL", "dataset": "rows.jsonl"}'), location.origin)!;

export function NoJobs() {
  return (
    <section class="empty">
      <h1>{t("jobs.empty")}</h1>
      <p>{t("jobs.emptyHelp")}</p>
      <pre>{FIRST}</pre>
      <button class="primary" onClick={() => go(["new"])}>
        {t("newJob")}
      </button>{" "}
      <Copy text={FIRST} label={t("copy.command")} />
    </section>
  );
}
