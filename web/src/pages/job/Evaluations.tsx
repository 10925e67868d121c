// The datasets that were run through the base model and the adapter: the scores, and the answers side by side.
import { useState } from "preact/hooks";
import { get, send } from "../../api";
import { deleteEvaluation } from "../../calls";
import { loss } from "../../format";
import { Calls } from "../../parts/Calls";
import { Confirm } from "../../parts/Confirm";
import { useLoaded } from "../../parts/load";
import { isOpen, usePolling } from "../../parts/polling";
import { Problem } from "../../parts/Problem";
import { Status } from "../../parts/Status";
import type { Artifact, Job } from "../../types";
import { t } from "../../words";
import { Answers } from "../evaluations/Answers";
import { type Evaluation, MODELS, type Page, SCORES, nameOf } from "../evaluations/types";
import { NewEvaluation } from "./NewEvaluation";

export function Evaluations({ job }: { job: Job }) {
  const saved = useLoaded((signal) => get<{ data: Artifact[] }>(`/jobs/${job.id}/artifacts`, signal), [job.id, job.status]);
  const { data, error, reload } = useLoaded((signal) => get<Page<Evaluation>>(`/jobs/${job.id}/evaluations`, signal), [job.id]);
  usePolling(data?.data, reload);
  const sources = saved.data?.data.filter(({ kind }) => kind === "adapter" || kind === "checkpoint") ?? [];
  if (sources.length === 0 && !data?.data.length && error === undefined && saved.error === undefined) return null;
  return (
    <section class="stack gap" aria-labelledby="evaluations">
      <h2 id="evaluations">{t("evaluations")}</h2>
      {saved.error !== undefined && <Problem error={saved.error} again={saved.reload} />}
      {error !== undefined && <Problem error={error} again={reload} />}
      {sources.length > 0 && <NewEvaluation jobId={job.id} sources={sources} made={reload} />}
      {data?.data.map((each) => (
        <One key={each.id} evaluation={each} changed={reload} />
      ))}
    </section>
  );
}

function One({ evaluation, changed }: { evaluation: Evaluation; changed: () => void }) {
  const [opened, setOpened] = useState(false);
  const [asks, setAsks] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const { id, job_id, checkpoint, status, done, examples, failure, waits, scores } = evaluation;
  const call = deleteEvaluation(job_id, id);
  const end = t(isOpen(evaluation) ? "cancel" : "delete");
  return (
    <details open={opened} onToggle={(event) => setOpened(event.currentTarget.open)}>
      <summary>
        <Status status={status} /> {nameOf(evaluation)}
        {checkpoint !== null && ` · ${t("step")} ${checkpoint}`} · {done}/{examples}
      </summary>
      {failure && <p lang="en">{failure.message}</p>}
      {waits && <p lang="en">{waits}</p>}
      {scores && <ScoreTable scores={scores} />}
      {opened && <Answers columns={MODELS.map((model) => ({ title: t(`evaluations.${model}`), of: evaluation, model }))} />}
      <p class="row">
        <button class="danger" onClick={() => setAsks(true)}>
          {end}
        </button>
        <Calls list={[{ title: end, calls: [call] }]} of={`${end}, ${nameOf(evaluation)}`} />
      </p>
      {problem !== undefined && <Problem error={problem} />}
      {asks && (
        <Confirm
          title={`${end}: ${nameOf(evaluation)}`}
          text={t("evaluations.deleteHelp")}
          action={end}
          confirm={() => void send(call).then(changed, setProblem)}
          close={() => setAsks(false)}
        />
      )}
    </details>
  );
}

function ScoreTable({ scores }: { scores: NonNullable<Evaluation["scores"]> }) {
  return (
    <table class="plain">
      <thead>
        <tr>
          <td />
          {SCORES.map((score) => (
            <th scope="col">{t(`evaluations.${score}`)}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {MODELS.map((model) => (
          <tr>
            <th scope="row">{t(`evaluations.${model}`)}</th>
            {SCORES.map((score) => (
              <td class="number">{loss(scores[model][score])}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
