import { compact, moment } from "../../format";
import { route, setQuery } from "../../route";
import type { JobEvent } from "../../types";
import { t } from "../../words";

const MOST_SHOWN = 500;

export function Events({ events }: { events: JobEvent[] }) {
  const only = route.value.query.get("type") ?? "";
  const types = [...new Set(events.map((event) => event.type))].sort();
  const shown = events.filter((event) => !only || event.type === only).slice(-MOST_SHOWN);
  if (events.length === 0) return <p class="quiet">{t("noEvents")}</p>;
  return (
    <>
      <div class="row controls">
        <select aria-label={t("kind")} value={only} onChange={(event) => setQuery("type", event.currentTarget.value)}>
          <option value="">{t("jobs.all")}</option>
          {types.map((type) => (
            <option value={type}>{type}</option>
          ))}
        </select>
      </div>
      <ol class="events" reversed>
        {shown.toReversed().map((event) => (
          <li class={event.data.level === "warning" ? "warning" : ""}>
            <time dateTime={new Date(event.time * 1000).toISOString()}>{moment(event.time * 1000)}</time>
            <strong>{event.type}</strong>
            <span>{describe(event.data)}</span>
          </li>
        ))}
      </ol>
    </>
  );
}

export function describe(data: Record<string, unknown>): string {
  const parts = Object.entries(data).filter(([, value]) => value !== null);
  return parts.map(([name, value]) => (name === "message" ? String(value) : `${name} ${text(value)}`)).join(" · ");
}

const text = (value: unknown): string =>
  typeof value === "string" ? value : typeof value === "number" ? compact(value) : JSON.stringify(value);
