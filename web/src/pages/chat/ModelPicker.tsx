import { route } from "../../route";
import { t } from "../../words";
import { setAddress } from "./address";
import { stopModel } from "./conversation";
import { labelOf } from "./labels";
import { type Choice, type Models } from "./models";

// A browser has six connections to one API, over all of its tabs.
const MOST = 4;

export function ModelPicker({ models, choices }: { models: Models; choices: readonly Choice[] }) {
  const left = (all: readonly Choice[]) => all.filter(({ key }) => !choices.some((each) => each.key === key));
  const [own, others] = [left(models.own), left(models.others)];
  const write = (next: readonly Choice[]): void => setAddress("with", next.map(({ key }) => key).join());
  function removeModel({ key }: Choice): void {
    stopModel(key);
    write(choices.filter((each) => each.key !== key));
  }
  const gone = missing(models, route.value.query.get("with"));
  return (
    <>
      <div class="row models" role="group" aria-label={t("chat.models")}>
        {choices.map((choice) => (
          <span class="chip">
            {labelOf(choice)}
            {choices.length > 1 && (
              <button type="button" class="plain" aria-label={t("chat.remove", { name: labelOf(choice) })} onClick={() => removeModel(choice)}>
                ×
              </button>
            )}
          </span>
        ))}
        {choices.length < MOST && own.length + others.length > 0 && (
          <select
            aria-label={t("chat.add")}
            value=""
            onChange={({ currentTarget }) => {
              write([...choices, ...[...own, ...others].filter(({ key }) => key === currentTarget.value)]);
              currentTarget.value = "";
            }}
          >
            <option value="">{t("chat.add")}</option>
            {own.map((choice) => (
              <option value={choice.key}>{labelOf(choice)}</option>
            ))}
            {others.length > 0 && (
              <optgroup label={t("chat.others")}>
                {others.map((choice) => (
                  <option value={choice.key}>{choice.name}</option>
                ))}
              </optgroup>
            )}
          </select>
        )}
      </div>
      {gone.length > 0 && <p class="quiet">{t("chat.gone", { names: gone.join(", ") })}</p>}
      {models.own.length === 1 && <p class="quiet">{t(models.ended ? "chat.onlyBase" : "chat.onlyBaseYet")}</p>}
    </>
  );
}

const missing = (models: Models, named: string | null): string[] =>
  (named ?? "").split(",").filter((key) => key && ![...models.own, ...models.others].some((each) => each.key === key));
