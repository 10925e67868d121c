import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { followJobs, jobs, older } from "../live/jobs";
import { Calls } from "../parts/Calls";
import { Confirm } from "../parts/Confirm";
import { Problem } from "../parts/Problem";
import { go, route, setQuery } from "../route";
import type { Status } from "../types";
import { t } from "../words";
import { JobTable } from "./JobTable";
import { ACTION_WORDS, type Action, act, callOf, possible } from "./actions";
import { NoJobs } from "./NoJobs";
import { matching } from "./matching";

const STATUSES: Status[] = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];

export function Jobs() {
  useEffect(followJobs, []);
  const selected = useSignal<ReadonlySet<string>>(new Set());
  const query = route.value.query;
  const shown = useComputed(() => matching(jobs.value ?? [], route.value.query));
  if (jobs.value === null) return <p class="quiet">{t("loading")}</p>;
  if (jobs.value.length === 0) return <NoJobs />;
  return (
    <>
      <div class="row filters">
        <h1>{t("jobs")}</h1>
        <button class="primary" onClick={() => go(["new"])}>
          {t("newJob")}
        </button>
        <input
          type="search"
          id="search"
          aria-label={t("jobs.search")}
          placeholder={t("jobs.search")}
          value={query.get("q") ?? ""}
          onInput={(event) => setQuery("q", event.currentTarget.value)}
        />
        <select aria-label={t("status")} value={query.get("status") ?? ""} onChange={(event) => setQuery("status", event.currentTarget.value)}>
          <option value="">{t("jobs.all")}</option>
          {STATUSES.map((status) => (
            <option value={status}>{t(`status.${status}`)}</option>
          ))}
        </select>
        <span class="quiet">{t(older.value.there ? "jobs.shownLoaded" : "jobs.shown", { shown: shown.value.length, all: jobs.value.length })}</span>
      </div>
      <Bulk selected={selected.value} clear={() => (selected.value = new Set())} />
      <JobTable
        rows={shown.value}
        selected={selected.value}
        toggle={(id) => {
          const next = new Set(selected.value);
          if (!next.delete(id)) next.add(id);
          selected.value = next;
        }}
      />
      <p class="quiet wide">{t("jobs.keys")}</p>
    </>
  );
}

function Bulk({ selected, clear }: { selected: ReadonlySet<string>; clear: () => void }) {
  const [confirming, setConfirming] = useState(false);
  const [error, setError] = useState<unknown>();
  const chosen = (jobs.value ?? []).filter((job) => selected.has(job.id));
  if (chosen.length === 0) return null;
  const can = (action: Action) => chosen.filter((job) => possible(job.status).includes(action));
  async function all(action: Action): Promise<void> {
    const results = await Promise.allSettled(can(action).map((job) => act(action, job.id)));
    setError(results.find((each) => each.status === "rejected")?.reason);
    if (results.every((each) => each.status === "fulfilled")) clear();
  }
  return (
    <div class="row bulk" role="toolbar" aria-label={t("actions")}>
      <span>{t("jobs.selected", { n: chosen.length })}</span>
      <button disabled={chosen.length < 2} onClick={() => go(["compare"], { jobs: chosen.map((job) => job.id).join(",") })}>
        {t("compare")}
      </button>
      <button disabled={can("cancel").length === 0} onClick={() => setConfirming(true)}>
        {t("cancel")}
      </button>
      <button disabled={can("retry").length === 0} onClick={() => all("retry")}>
        {t("retryJob")}
      </button>
      <Calls
        list={(["cancel", "retry"] as const)
          .filter((action) => can(action).length > 0)
          .map((action) => ({ title: t(ACTION_WORDS[action]), calls: can(action).map((job) => callOf(action, job.id)) }))}
      />
      {error !== undefined && <Problem error={error} />}
      {confirming && (
        <Confirm
          title={t("cancel")}
          text={t("confirm.cancelMany", { n: can("cancel").length })}
          action={t("cancel")}
          confirm={() => all("cancel")}
          close={() => setConfirming(false)}
        />
      )}
    </div>
  );
}
