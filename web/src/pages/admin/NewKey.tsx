import { useState } from "preact/hooks";
import { send } from "../../api";
import { type NewKey as Wanted, createKey } from "../../calls";
import { Calls } from "../../parts/Calls";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import type { NewlyMade } from "./types";

const EMPTY: Wanted = { owner: "", name: null, admin: false, days: null };
const DAYS = [7, 30, 90, 365];

export function NewKey({ made }: { made: (key: NewlyMade) => void }) {
  const [wanted, setWanted] = useState(EMPTY);
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  async function create(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      made(await send<NewlyMade>(createKey(wanted)));
      setWanted(EMPTY);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  return (
    <form class="panel" onSubmit={create} aria-labelledby="new-key">
      <h2 id="new-key">{t("keys.new")}</h2>
      <div class="row fields">
        <label>
          {t("owner")}
          <input required value={wanted.owner} autocomplete="off" onInput={(event) => setWanted({ ...wanted, owner: event.currentTarget.value.trim() })} />
        </label>
        <label>
          {t("keys.name")}
          <input value={wanted.name ?? ""} autocomplete="off" placeholder={t("keys.nameHint")} onInput={(event) => setWanted({ ...wanted, name: event.currentTarget.value || null })} />
        </label>
        <label>
          {t("keys.expires")}
          <select value={wanted.days ?? ""} onChange={(event) => setWanted({ ...wanted, days: Number(event.currentTarget.value) || null })}>
            <option value="">{t("keys.never")}</option>
            {DAYS.map((n) => (
              <option value={n}>{t("keys.inDays", { n })}</option>
            ))}
          </select>
        </label>
        <label class="check">
          <input type="checkbox" checked={wanted.admin} onChange={(event) => setWanted({ ...wanted, admin: event.currentTarget.checked })} />
          {t("keys.adminHelp")}
        </label>
        <button class="primary" disabled={busy}>
          {t("keys.create")}
        </button>
        <Calls of={t("keys.new")} list={[{ title: t("keys.create"), calls: [createKey({ ...wanted, owner: wanted.owner || "OWNER" })] }]} />
      </div>
      {error !== undefined && <Problem error={error} />}
    </form>
  );
}
