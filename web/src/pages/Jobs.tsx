import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { colorOf } from "../colors";
import { loss, moment } from "../format";
import { followJobs, jobs } from "../live/jobs";
import { Calls } from "../parts/Calls";
import { Confirm } from "../parts/Confirm";
import { Problem } from "../parts/Problem";
import { Progress } from "../parts/Progress";
import { Sparkline } from "../parts/Sparkline";
import { Status } from "../parts/Status";
import { go, href, route, setQuery } from "../route";
import type { Status as StatusName, Summary } from "../types";
import { t } from "../words";
import { ACTION_WORDS, type Action, act, callOf, possible } from "./actions";
import { NoJobs } from "./NoJobs";
import { type Order, matching } from "./matching";

const ROW = 48; // px, as in the style sheet
const STATUSES: StatusName[] = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];

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
        <span class="quiet">{t("jobs.shown", { shown: shown.value.length, all: jobs.value.length })}</span>
      </div>
      <Bulk selected={selected.value} clear={() => (selected.value = new Set())} />
      <Table
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

type TableProps = { rows: Summary[]; selected: ReadonlySet<string>; toggle: (id: string) => void };

// Only the rows that are in sight are in the document, between two spacers.
function Table({ rows, selected, toggle }: TableProps) {
  const place = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(800);
  const [current, setCurrent] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setHeight(entry!.contentRect.height));
    observer.observe(place.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
        event.preventDefault();
        document.getElementById("search")?.focus();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  function move(to: number): void {
    const next = Math.max(0, Math.min(rows.length - 1, to));
    setCurrent(next);
    const view = place.current!;
    if (next * ROW < view.scrollTop) view.scrollTop = next * ROW;
    else if ((next + 2) * ROW > view.scrollTop + view.clientHeight) view.scrollTop = (next + 2) * ROW - view.clientHeight;
  }

  function onKeyDown(event: KeyboardEvent): void {
    const row = rows[current];
    if (event.key === "ArrowDown" || event.key === "j") move(current + 1);
    else if (event.key === "ArrowUp" || event.key === "k") move(current - 1);
    else if (event.key === "Home") move(0);
    else if (event.key === "End") move(rows.length - 1);
    else if (event.key === "x" && row) toggle(row.id);
    else if (event.key === "Enter" && row && event.target === place.current) go(["jobs", row.id]);
    else return;
    event.preventDefault();
  }

  const first = Math.max(0, Math.floor(top / ROW) - 5);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + 5);
  return (
    <div
      ref={place}
      class="table-view"
      tabIndex={0}
      role="region"
      aria-label={t("jobs")}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      onKeyDown={onKeyDown}
    >
      <table class="jobs" aria-rowcount={rows.length + 1}>
        <thead>
          <tr>
            <th class="check" />
            <Head order="status" />
            <Head order="name" />
            <Head order="model" />
            <Head order="progress" />
            <Head order="loss" />
            <Head order="owner" />
            <Head order="created" />
          </tr>
        </thead>
        <tbody>
          <Spacer rows={first} />
          {rows.slice(first, last).map((job, index) => (
            <Row key={job.id} job={job} index={first + index} current={first + index === current} selected={selected.has(job.id)} toggle={toggle} />
          ))}
          <Spacer rows={rows.length - last} />
        </tbody>
      </table>
      {rows.length === 0 && (
        <p class="empty">
          {t("jobs.noMatch")} <button onClick={() => go(["jobs"])}>{t("jobs.clear")}</button>
        </p>
      )}
    </div>
  );
}

function Spacer({ rows }: { rows: number }) {
  if (rows <= 0) return null;
  return (
    <tr aria-hidden="true" style={{ height: `${rows * ROW}px` }}>
      <td colSpan={8} />
    </tr>
  );
}

function Head({ order }: { order: Order }) {
  const query = route.value.query;
  const by = query.get("sort") ?? "created";
  const descending = query.get("order") !== "ascending";
  const sorted = by === order;
  return (
    <th scope="col" class={order} aria-sort={sorted ? (descending ? "descending" : "ascending") : "none"}>
      <button
        class="plain"
        onClick={() => {
          setQuery("order", sorted && descending ? "ascending" : "");
          setQuery("sort", order);
        }}
      >
        {t(order)}
        <span aria-hidden="true">{sorted ? (descending ? " ↓" : " ↑") : ""}</span>
      </button>
    </th>
  );
}

type RowProps = { job: Summary; index: number; current: boolean; selected: boolean; toggle: (id: string) => void };

function Row({ job, index, current, selected, toggle }: RowProps) {
  const name = job.name ?? job.id;
  return (
    <tr aria-rowindex={index + 2} class={current ? "current" : ""}>
      <td class="check">
        <input type="checkbox" checked={selected} aria-label={t("jobs.select", { name })} onChange={() => toggle(job.id)} />
      </td>
      <td class="status">
        <Status status={job.status} requested={job.requested_action} />
        {job.queue && (
          <span class="quiet" title={job.queue.reason}>
            {t("position", { n: job.queue.position })}
          </span>
        )}
      </td>
      <td class="name">
        <a href={href(["jobs", job.id])}>{name}</a>
        <span class="quiet" title={job.failure_message ?? job.queue?.reason ?? job.id}>
          {job.failure_message ?? job.queue?.reason ?? (job.name ? job.id : "")}
        </span>
      </td>
      <td class="model">
        {job.model}
        <span class="quiet">{job.dataset}</span>
      </td>
      <td class="progress">
        <Progress done={job.progress} left={job.status === "running" ? job.eta_seconds : null} />
      </td>
      <td class="loss">
        <Sparkline values={job.losses} color={colorOf(job.id)} />
        <span class="number">{loss(job.loss)}</span>
      </td>
      <td class="owner">{job.owner}</td>
      <td class="created">{moment(job.created_at)}</td>
    </tr>
  );
}

