import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { get } from "../../api";
import { bytes } from "../../format";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { route, setQuery } from "../../route";
import type { Artifact, Job, JobEvent } from "../../types";
import { t } from "../../words";
import { MOST_BYTES, containing, linesOf, readLogFile } from "./log";

const END_PX = 24;
const LOOK_MS = 2000;
const PUBLISHING_MS = 120_000;

// The live log while the job runs; the trainer's own log files once they are published, at the end of each attempt.
export function LogTab({ job, events }: { job: Job; events: JobEvent[] }) {
  const query = route.value.query;
  const [name, search] = [query.get("file") ?? "", query.get("find") ?? ""];
  const files = useLoaded((signal) => get<{ data: Artifact[] }>(`/jobs/${job.id}/artifacts`, signal), [job.id, job.status, job.attempt]);
  const logs = (files.data?.data ?? []).filter((each) => each.kind === "log");
  // An ended job's log is published a moment after its end.
  useEffect(() => {
    const soon = logs.length === 0 && job.finished_at !== null && Date.now() - Date.parse(job.finished_at) < PUBLISHING_MS;
    const timer = soon ? setTimeout(files.reload, LOOK_MS) : undefined;
    return () => clearTimeout(timer);
  }, [files.data, job.finished_at]);
  const chosen = logs.find((each) => each.name === name);
  const path = chosen && `/jobs/${job.id}/artifacts/${chosen.name}`;
  const file = useLoaded(async (signal) => (path ? readLogFile(path, chosen.bytes, signal) : undefined), [path, chosen?.sha256]);
  const live = useMemo(() => linesOf(events), [events]);
  const lines = path ? file.data : live;
  const found = useMemo(() => containing(lines ?? [], search), [lines, search]);
  return (
    <>
      <div class="row controls">
        <select aria-label={t("log")} value={path ? name : ""} onChange={(event) => setQuery("file", event.currentTarget.value)}>
          <option value="">{t("log.live")}</option>
          {logs.map((each) => (
            <option value={each.name}>
              {each.name} ({bytes(each.bytes)})
            </option>
          ))}
        </select>
        <input
          type="search"
          aria-label={t("log.find")}
          placeholder={t("log.find")}
          value={search}
          onInput={(event) => setQuery("find", event.currentTarget.value)}
        />
        <span class="quiet number">{t("log.lines", { shown: found.length, all: lines?.length ?? 0 })}</span>
        {path ? (
          <a href={path} download>
            {t("log.download")}
          </a>
        ) : (
          <button onClick={() => save(`${job.id}.log`, live)}>{t("log.download")}</button>
        )}
      </div>
      {chosen && chosen.bytes > MOST_BYTES && <p class="quiet">{t("log.cut", { size: bytes(MOST_BYTES) })}</p>}
      {file.error !== undefined && <Problem error={file.error} again={file.reload} />}
      {lines === undefined ? <p class="quiet">{t("loading")}</p> : <Lines lines={found} />}
    </>
  );
}

// Follows the log while its end is in sight.
function Lines({ lines }: { lines: readonly string[] }) {
  const place = useRef<HTMLPreElement>(null);
  const [following, follow] = useState(true);
  useLayoutEffect(() => {
    if (following) place.current?.scrollTo({ top: place.current.scrollHeight });
  }, [lines, following]);
  if (lines.length === 0) return <p class="quiet">{t("log.empty")}</p>;
  return (
    <div class="log">
      <pre
        ref={place}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={t("log")}
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => follow(scrollTop + clientHeight >= scrollHeight - END_PX)}
      >
        {lines.join("\n")}
      </pre>
      {!following && (
        <button class="end" onClick={() => follow(true)}>
          {t("log.toEnd")} ↓
        </button>
      )}
    </div>
  );
}

function save(name: string, lines: readonly string[]): void {
  const url = URL.createObjectURL(new Blob([lines.join("\n"), "\n"], { type: "text/plain" }));
  const link = document.createElement("a");
  [link.href, link.download] = [url, name];
  link.click();
  URL.revokeObjectURL(url);
}
