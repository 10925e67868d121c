import { useState } from "preact/hooks";
import { send } from "../../api";
import { addWebhook } from "../../calls";
import { Calls } from "../../parts/Calls";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import type { NewlyAdded } from "./types";

const EVENTS = ["job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"];
const OF_OPENAI = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"];
const ENDS = EVENTS.slice(2);

export function NewWebhook({ added }: { added: (webhook: NewlyAdded) => void }) {
  const [url, setUrl] = useState("");
  const [events, setEvents] = useState<readonly string[]>(ENDS);
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  async function add(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      added(await send<NewlyAdded>(addWebhook(url, events)));
      setUrl("");
      setEvents(ENDS);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  const toggle = (name: string) => setEvents(events.includes(name) ? events.filter((each) => each !== name) : [...events, name]);
  return (
    <form class="panel" onSubmit={add} aria-labelledby="new-webhook">
      <h2 id="new-webhook">{t("webhooks.new")}</h2>
      <label class="stack">
        {t("webhooks.url")}
        <input type="url" required value={url} placeholder="https://example.com/hook" onInput={(event) => setUrl(event.currentTarget.value.trim())} />
      </label>
      <fieldset class="row events-of">
        <legend>{t("events")}</legend>
        {[...EVENTS, ...OF_OPENAI].map((name) => (
          <label class="check">
            <input type="checkbox" checked={events.includes(name)} onChange={() => toggle(name)} />
            <code>{name}</code>
          </label>
        ))}
      </fieldset>
      <div class="row">
        <button class="primary" disabled={busy || events.length === 0}>
          {t("webhooks.add")}
        </button>
        <Calls of={t("webhooks.new")} list={[{ title: t("webhooks.add"), calls: [addWebhook(url || "https://example.com/hook", events)] }]} />
      </div>
      {error !== undefined && <Problem error={error} />}
    </form>
  );
}
