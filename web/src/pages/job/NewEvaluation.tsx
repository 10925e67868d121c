// Has a worker run a dataset through the base model and what the job has saved.
import { useState } from "preact/hooks";
import { get } from "../../api";
import { evaluateJob } from "../../calls";
import { Calls } from "../../parts/Calls";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { useStart } from "../../parts/starting";
import type { Artifact } from "../../types";
import { t } from "../../words";
import { Upload } from "../new/Upload";
import type { Dataset } from "../new/datasets";

const ELSEWHERE = "";
const LIMITS = { limit: { usual: 200, max: 10_000 }, max_new_tokens: { usual: 256, max: 4096 } } as const;
const NAMES = ["limit", "max_new_tokens"] as const;

export function NewEvaluation({ jobId, sources, made }: { jobId: string; sources: readonly Artifact[]; made: () => void }) {
  const datasets = useLoaded((signal) => get<{ data: Dataset[] }>("/datasets?limit=100", signal), []);
  const steps = sources.flatMap(({ kind, step }) => (kind === "checkpoint" && step !== null ? [step] : []));
  const hasAdapter = sources.some(({ kind }) => kind === "adapter");
  const [chosen, setChosen] = useState<{ dataset?: string; checkpoint?: number | null }>({});
  const [path, setPath] = useState("");
  const [typed, setTyped] = useState({ limit: String(LIMITS.limit.usual), max_new_tokens: String(LIMITS.max_new_tokens.usual) });
  const offered = datasets.data?.data ?? [];
  const dataset = chosen.dataset ?? offered[0]?.id ?? ELSEWHERE;
  const checkpoint = chosen.checkpoint !== undefined ? chosen.checkpoint : hasAdapter ? null : steps[0]!;
  const call = evaluateJob(jobId, { dataset: dataset || path || "held-out.jsonl", checkpoint, limit: Number(typed.limit), max_new_tokens: Number(typed.max_new_tokens) });
  const { start, problem } = useStart(call, made);

  return (
    <>
      <form class="row fields" aria-label={t("evaluations.start")} onSubmit={start}>
        <label>
          {t("dataset")}
          <select value={dataset} onChange={(event) => setChosen({ ...chosen, dataset: event.currentTarget.value })}>
            {offered.map(({ id, filename, rows }) => (
              <option value={id}>
                {filename} · {rows ?? "?"} · {id.slice(0, 11)}…
              </option>
            ))}
            <option value={ELSEWHERE}>{t("elsewhere")}</option>
          </select>
        </label>
        {dataset === ELSEWHERE && (
          <label>
            {t("elsewhere")}
            <input required autocomplete="off" spellcheck={false} value={path} onInput={(event) => setPath(event.currentTarget.value)} />
          </label>
        )}
        {steps.length > 0 && (
          <label>
            {t("model")}
            <select value={checkpoint ?? ""} onChange={({ currentTarget: { value } }) => setChosen({ ...chosen, checkpoint: value === "" ? null : Number(value) })}>
              {hasAdapter && <option value="">{t("evaluations.adapter")}</option>}
              {steps.map((step) => (
                <option value={step}>{t("chat.step", { n: step })}</option>
              ))}
            </select>
          </label>
        )}
        {NAMES.map((name) => (
          <label>
            {t(`evaluations.${name}`)}
            <input
              type="number"
              required
              min={1}
              max={LIMITS[name].max}
              value={typed[name]}
              onInput={({ currentTarget: { value } }) => setTyped((before) => ({ ...before, [name]: value }))}
            />
          </label>
        ))}
        <button>{t("evaluations.start")}</button>
        <Calls list={[{ title: t("evaluations.start"), calls: [call] }]} of={t("evaluations")} />
      </form>
      <Upload
        done={({ id }) => {
          datasets.reload();
          setChosen({ ...chosen, dataset: id });
        }}
      />
      {datasets.error !== undefined && <Problem error={datasets.error} again={datasets.reload} />}
      {problem !== undefined && <Problem error={problem} />}
    </>
  );
}
