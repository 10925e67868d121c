import { compact } from "../../format";
import { t } from "../../words";
import { setAddress, writeSetting } from "./address";
import { hasOwnSystem } from "./conversation";
import { FIELDS, readSetting, readSystem } from "./sampling";

const NAMES = ["temperature", "top_p", "max_tokens", "seed"] as const;

export function Settings() {
  const changed = NAMES.filter((name) => readSetting(name) !== FIELDS[name].usual);
  const shown = changed.map((name) => `${t(`chat.${name}`)} ${compact(readSetting(name))}`);
  return (
    <details class="settings">
      <summary>
        {t("chat.settings")} <span class="quiet">{[...(readSystem() ? [t("chat.system")] : []), ...shown].join(" · ")}</span>
      </summary>
      <div class="fields">
        {NAMES.map((name) => (
          <label class="stack">
            {t(`chat.${name}`)}
            <input
              type="number"
              {...{ min: FIELDS[name].min, max: FIELDS[name].max, step: FIELDS[name].step }}
              value={readSetting(name)}
              onChange={({ currentTarget }) => {
                if (currentTarget.value !== "" && currentTarget.validity.valid) writeSetting(name, Number(currentTarget.value));
                else currentTarget.value = String(readSetting(name));
              }}
            />
          </label>
        ))}
      </div>
      <label class="stack">
        {t("chat.system")}
        <textarea rows={2} value={readSystem()} onInput={(event) => setAddress("system", event.currentTarget.value)} />
      </label>
      {hasOwnSystem() && <p class="quiet">{t("chat.ownSystem")}</p>}
    </details>
  );
}
