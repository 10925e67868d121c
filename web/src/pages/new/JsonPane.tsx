import { submitJob } from "../../calls";
import { Calls } from "../../parts/Calls";
import { t } from "../../words";
import { recipe, text } from "./draft";

export function JsonPane() {
  const broken = recipe.value === null;
  return (
    <section class="json">
      <div class="row">
        <h2 id="json-title">{t("json.title")}</h2>
        <Calls of={t("newJob")} list={[{ title: t("submit"), calls: [submitJob(text.value)] }]} />
      </div>
      <textarea
        aria-labelledby="json-title"
        aria-describedby="json-hint"
        aria-invalid={broken}
        spellcheck={false}
        rows={Math.min(30, Math.max(8, text.value.split("\n").length + 1))}
        value={text.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
      />
      <p id="json-hint" class={broken ? "problem" : "quiet"} role="status">
        {t(broken ? "json.broken" : "json.hint")}
      </p>
    </section>
  );
}
