import { RecipeRows } from "../../parts/RecipeRows";
import { get } from "../../api";
import { useLoaded } from "../../parts/load";
import { Copy } from "../../parts/Copy";
import { Problem } from "../../parts/Problem";
import { route, setQuery } from "../../route";
import type { Job } from "../../types";
import { t } from "../../words";
import { differing, flat } from "../recipes";

// The recipe as the job runs it, beside that of another job if one is named.
export function RecipeTab({ job }: { job: Job }) {
  const other = route.value.query.get("other") ?? "";
  const { data, error } = useLoaded(async (signal) => (other ? get<Job>(`/jobs/${other}`, signal) : undefined), [other]);
  const recipes = [job, ...(data && other ? [data] : [])].map((each) => flat(each.recipe));
  const fields = data && other ? differing(recipes) : Object.keys(recipes[0]!);
  const text = JSON.stringify(job.recipe, null, 2);
  return (
    <>
      <form
        class="row controls"
        onSubmit={(event) => {
          event.preventDefault();
          setQuery("other", String(new FormData(event.currentTarget).get("other")).trim());
        }}
      >
        <label>
          {t("compare")} <input name="other" placeholder="job_…" defaultValue={other} />
        </label>
        <button>{t("differences")}</button>
        <Copy text={text} label={t("copy.json")} />
      </form>
      {error !== undefined && <Problem error={error} />}
      <div class="scroll" tabIndex={0} role="region" aria-label={t("recipe")}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t("field")}</th>
              <th scope="col">{job.name ?? job.id}</th>
              {data && other && <th scope="col">{data.name ?? data.id}</th>}
            </tr>
          </thead>
          <tbody>
            <RecipeRows fields={fields} recipes={recipes} />
          </tbody>
        </table>
      </div>
      {job.command && (
        <details>
          <summary>{t("command")}</summary>
          <pre>{job.command}</pre>
        </details>
      )}
    </>
  );
}
