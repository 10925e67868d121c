// What the evaluations of several jobs say on the same dataset, and their answers side by side.
import { useState } from "preact/hooks";
import { get } from "../../api";
import { loss } from "../../format";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import type { Job } from "../../types";
import { t } from "../../words";
import { Answers, type Column } from "./Answers";
import { type Group, bestOf, comparable } from "./groups";
import { type Evaluation, type Page, SCORES, nameOf } from "./types";

export function ComparedEvaluations({ jobs }: { jobs: readonly Job[] }) {
  const { data, error, reload } = useLoaded(
    (signal) => Promise.all(jobs.map(({ id }) => get<Page<Evaluation>>(`/jobs/${id}/evaluations?limit=100`, signal))),
    [jobs.map(({ id }) => id).join()],
  );
  if (error !== undefined) return <Problem error={error} again={reload} />;
  const groups = comparable(data?.map((page) => page.data) ?? []);
  if (groups.length === 0) return null;
  const hasOneBase = new Set(jobs.map(({ recipe }) => recipe.model)).size === 1;
  const names = new Map(jobs.map(({ id, name }) => [id, name ?? id]));
  return (
    <section class="stack gap" aria-labelledby="compared-evaluations">
      <h2 id="compared-evaluations">{t("evaluations")}</h2>
      {groups.map((group) => (
        <Scored key={group.key} group={group} names={names} hasOneBase={hasOneBase} />
      ))}
    </section>
  );
}

function Scored({ group: { of }, names, hasOneBase }: { group: Group; names: ReadonlyMap<string, string>; hasOneBase: boolean }) {
  const [opened, setOpened] = useState(false);
  const first = of[0]!;
  const titleOf = ({ job_id, checkpoint }: Evaluation) => `${names.get(job_id)}${checkpoint === null ? "" : ` · ${t("step")} ${checkpoint}`}`;
  const adapters: Column[] = of.map((each) => ({ title: titleOf(each), of: each, model: "adapter" }));
  const base: Column[] = hasOneBase ? [{ title: t("evaluations.base"), of: first, model: "base" }] : [];
  return (
    <div>
      <div class="scroll" tabIndex={0} role="region" aria-label={nameOf(first)}>
        <table class="plain compared">
          <caption>
            {nameOf(first)} · {t("evaluations.count", { n: first.examples })}
          </caption>
          <thead>
            <tr>
              <td />
              {SCORES.map((score) => (
                <th scope="col">{t(`evaluations.${score}`)}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {of.map((each) => (
              <tr>
                <th scope="row">{titleOf(each)}</th>
                {SCORES.map((score) => {
                  const { adapter, base } = each.scores!;
                  const isBest = adapter[score] === bestOf(score, of.map(({ scores }) => scores!.adapter[score]));
                  return (
                    <td class="number">
                      {loss(adapter[score])} {isBest && `★ ${t("best")}`} <span class="quiet">{t("evaluations.ofBase", { value: loss(base[score]) })}</span>
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <details open={opened} onToggle={(event) => setOpened(event.currentTarget.open)}>
        <summary>{t("evaluations.answers")}</summary>
        {opened && <Answers columns={[...base, ...adapters]} />}
      </details>
    </div>
  );
}
