import { compact, moment } from "../../format";
import { route, setQuery } from "../../route";
import type { JobEvent } from "../../types";
import { t } from "../../words";
import { eventOf, fieldOf, valueOf } from "../../words/terms";

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
            <option value={type}>{eventOf(type)}</option>
          ))}
        </select>
      </div>
      <ol class="events" reversed>
        {shown.toReversed().map((event) => (
          <li class={event.data.level === "warning" ? "warning" : ""}>
            <time dateTime={new Date(event.time * 1000).toISOString()}>{moment(event.time * 1000)}</time>
            <strong>{eventOf(event.type)}</strong>
            <span>{describe(event, fieldOf, (name, value) => valueOf(event.type, name, value))}</span>
          </li>
        ))}
      </ol>
    </>
  );
}

// Of things with a name, the names: the API has the rest.
function plain(value: unknown): string {
  if (typeof value === "number") return compact(value);
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return value.map((each) => (each && typeof each === "object" && "name" in each ? String(each.name) : plain(each))).join(", ");
  return Object.entries(value).map(([name, each]) => `${name} ${plain(each)}`).join(", ");
}

const asItIs = (name: string): string => name;

// What is empty says nothing, and a message needs no name, nor does what the event is named after.
export function describe({ type, data }: Pick<JobEvent, "type" | "data">, field = asItIs, word = (_: string, value: string): string => value): string {
  const parts = Object.entries(data).filter(([, value]) => value !== null && value !== "");
  const text = (name: string, value: unknown): string => (typeof value === "string" ? word(name, value) : plain(value));
  return parts.map(([name, value]) => (name === "message" || name === type ? text(name, value) : `${field(name)} ${text(name, value)}`)).join(" · ");
}
