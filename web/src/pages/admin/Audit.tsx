import { moment } from "../../format";
import { useDebounced } from "../../parts/debounced";
import { usePages } from "../../parts/pages";
import { Problem } from "../../parts/Problem";
import { href, route, setQuery } from "../../route";
import { t } from "../../words";
import type { Entry } from "./types";

const FILTERS = { owner: "owner", action: "audit.action", target: "audit.object" } as const;
const ACTIONS = [
  ...["job.create", "job.cancel", "job.pause", "job.resume", "job.retry", "job.delete", "sweep.create", "sweep.cancel", "export.create"],
  ...["dataset.create", "dataset.delete", "model.delete", "results.delete", "key.create", "key.revoke", "quota.put", "clean"],
  ...["webhook.create", "webhook.change", "webhook.delete", "webhook.ping", "delivery.retry", "session.create", "session.delete"],
  ...["push.create", "secret.put", "secret.delete", "evaluation.create", "evaluation.delete", "rating.create", "rating.delete"],
];

export function Audit() {
  const { query } = route.value;
  const chosen = useDebounced(new URLSearchParams([...query].filter(([name, value]) => name in FILTERS && value)).toString());
  const { rows, hasMore, error, older, reload } = usePages<Entry>("/audit", Object.fromEntries(new URLSearchParams(chosen)), (entry) => String(entry.seq));
  return (
    <>
      <div class="row filters" role="search" aria-label={t("admin.audit")}>
        {(Object.keys(FILTERS) as (keyof typeof FILTERS)[]).map((name) => (
          <label>
            {t(FILTERS[name])}{" "}
            <input
              type="search"
              list={name === "action" ? "actions" : undefined}
              value={query.get(name) ?? ""}
              onInput={(event) => setQuery(name, event.currentTarget.value.trim())}
            />
          </label>
        ))}
        <datalist id="actions">
          {ACTIONS.map((each) => (
            <option value={each} />
          ))}
        </datalist>
        <button onClick={reload}>{t("refresh")}</button>
      </div>
      {error !== undefined && <Problem error={error} again={reload} />}
      {!rows && error === undefined && <p class="quiet">{t("loading")}</p>}
      {rows?.length === 0 && <p class="quiet">{t("audit.none")}</p>}
      {rows !== undefined && rows.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={t("admin.audit")}>
          <table class="plain wide">
            <thead>
              <tr>
                <th scope="col">{t("time")}</th>
                <th scope="col">{t("owner")}</th>
                <th scope="col">{t("audit.action")}</th>
                <th scope="col">{t("audit.object")}</th>
                <th scope="col">{t("audit.details")}</th>
                <th scope="col">{t("key")}</th>
                <th scope="col">{t("audit.request")}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((entry) => (
                <tr key={entry.seq}>
                  <td class="number">{moment(entry.at)}</td>
                  <td class="word">{entry.owner}</td>
                  <td class="word">{entry.action}</td>
                  <td class="word">
                    <Target of={entry} />
                  </td>
                  <td class="details">{entry.data && <code>{JSON.stringify(entry.data)}</code>}</td>
                  <td>{entry.key_id ? <code>{entry.key_id}</code> : <span class="quiet">–</span>}</td>
                  <td class="word">
                    <code class="quiet">{entry.request_id}</code>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {hasMore && <button onClick={older}>{t("older")}</button>}
    </>
  );
}

const ROOMS: Readonly<Record<string, string>> = { job: "jobs", sweep: "sweeps", wh: "webhooks" };

function Target({ of: { target, action } }: { of: Entry }) {
  if (target === null) return <span class="quiet">–</span>;
  const room = ROOMS[target.split("_")[0]!];
  return room && !action.endsWith(".delete") ? <a href={href([room, target])}>{target}</a> : <>{target}</>;
}
