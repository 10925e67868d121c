import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { colorOf } from "../colors";
import { loss, moment } from "../format";
import { loadOlder, older } from "../live/jobs";
import { Problem } from "../parts/Problem";
import { Progress } from "../parts/Progress";
import { Sparkline } from "../parts/Sparkline";
import { Status } from "../parts/Status";
import { go, href, route, setQuery } from "../route";
import { language } from "../settings";
import type { Summary } from "../types";
import { t } from "../words";
import { explained, reasonOf } from "../words/server";
import type { Order } from "./matching";

const ROW = 48; // px, as in the style sheet
const BEYOND = 6; // rows that are drawn before they come into sight
const STEP = 4 * ROW; // a table that scrolls on by less is not drawn anew

type TableProps = { rows: Summary[]; selected: ReadonlySet<string>; toggle: (id: string) => void };

// Only the rows that are in sight are in the document, between two spacers.
export function JobTable({ rows, selected, toggle }: TableProps) {
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

  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((top + STEP + height) / ROW) + BEYOND);
  return (
    <div
      ref={place}
      class="table-view"
      tabIndex={0}
      role="region"
      aria-label={t("jobs")}
      onScroll={(event) => setTop(Math.floor(event.currentTarget.scrollTop / STEP) * STEP)}
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
      <Older atEnd={last === rows.length} />
    </div>
  );
}

// Older jobs are loaded at the table's end by themselves, unless the reader searches among those that are there.
function Older({ atEnd }: { atEnd: boolean }) {
  const { there, loading, error } = older.value;
  const whole = !["q", "status", "sort", "order"].some((name) => route.value.query.has(name));
  useEffect(() => {
    if (atEnd && there && whole && !loading && error === undefined) void loadOlder();
  }, [atEnd, there, whole, loading, error]);
  if (!there) return null;
  return (
    <p class="older">
      {error !== undefined && <Problem error={error} />}
      {!whole && <span class="quiet">{t("jobs.searchedLoaded")}</span>}{" "}
      <button disabled={loading} onClick={loadOlder}>
        {t(loading ? "loading" : "jobs.loadOlder")}
      </button>
    </p>
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

// A row that has not changed is not compared either.
function Row({ job, index, current, selected, toggle }: RowProps) {
  return useMemo(() => <Cells {...{ job, index, current, selected, toggle }} />, [job, index, current, selected, language.value]);
}

function Cells({ job, index, current, selected, toggle }: RowProps) {
  const name = job.name ?? job.id;
  // In English the message itself, which says more.
  const failure = language.value === "zh" && job.failure_code ? explained(job.failure_code)?.what : job.failure_message;
  const why = failure ?? job.failure_message ?? (job.queue && reasonOf(job.queue));
  return (
    <tr aria-rowindex={index + 2} class={current ? "current" : ""}>
      <td class="check">
        <input type="checkbox" checked={selected} aria-label={t("jobs.select", { name })} onChange={() => toggle(job.id)} />
      </td>
      <td class="status">
        <Status status={job.queue ? "queued" : job.status} requested={job.requested_action} />
        {job.queue && (
          <span class="quiet" title={reasonOf(job.queue)}>
            {t("position", { n: job.queue.position })}
          </span>
        )}
      </td>
      <td class="name">
        <a href={href(["jobs", job.id])}>{name}</a>
        <span class="quiet" title={job.failure_message ?? why ?? job.id}>
          {why ?? (job.name ? job.id : "")}
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
