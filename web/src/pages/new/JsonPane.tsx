import { Copy } from "../../parts/Copy";
import { t } from "../../words";
import { asCurl, asSubmit } from "../actions";
import { recipe, text } from "./draft";

export function JsonPane() {
  const broken = recipe.value === null;
  return (
    <section class="json">
      <div class="row">
        <h2 id="json-title">{t("json.title")}</h2>
        <Copy text={asCurl("POST", "/jobs", text.value)} label={t("copy.curl")} />
        <Copy text={asSubmit(text.value)} label={t("copy.command")} />
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
