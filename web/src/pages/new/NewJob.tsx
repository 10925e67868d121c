import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, get } from "../../api";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { type Form, type Schema, fieldAt, formOf } from "../../recipe/schema";
import { withMethod } from "../../recipe/methods";
import { forCopy, merge, read, write } from "../../recipe/values";
import { go, route, setQuery } from "../../route";
import type { Job } from "../../types";
import { t } from "../../words";
import { DatasetPanel } from "./DatasetPanel";
import type { Dataset } from "./datasets";
import { JsonPane } from "./JsonPane";
import "./new.css";
import { PlanView } from "./PlanView";
import { RecipeForm } from "./RecipeForm";
import { change, recipe, replace, startOver, submit, text } from "./draft";
import { usePlan } from "./plan";

type Model = { id: string; owned_by: string };

// What the form is made of, and what it offers.
async function readForm(signal: AbortSignal): Promise<{ form: Form; models: Model[] }> {
  const [schema, models] = await Promise.all([get<Schema>("/recipe-schema", signal), get<{ data: Model[] }>("/v1/models", signal)]);
  return { form: formOf(schema), models: models.data.filter((model) => model.owned_by === "finetuned") };
}

export function NewJob() {
  const made = useLoaded(readForm, []);
  const datasets = useLoaded((signal) => get<{ data: Dataset[] }>("/datasets?limit=100", signal), []);
  const copied = useCopy(made.data?.form);
  const error = made.error ?? datasets.error ?? copied;
  const again = () => {
    made.reload();
    datasets.reload();
  };
  const ready = made.data && datasets.data && !route.value.query.has("from");
  return (
    <>
      {error !== undefined && <Problem error={error} again={again} />}
      {ready ? <Editor {...made.data!} datasets={datasets.data!.data} uploaded={datasets.reload} /> : error === undefined && <p class="quiet">{t("loading")}</p>}
    </>
  );
}

// Takes over the recipe of the job that the address names, once: later edits outlive a reload.
function useCopy(form: Form | undefined): unknown {
  const [error, setError] = useState<unknown>();
  const from = route.value.query.get("from");
  useEffect(() => {
    if (!form || !from) return;
    const abort = new AbortController();
    get<Job>(`/jobs/${encodeURIComponent(from)}`, abort.signal).then(
      (job) => {
        replace(forCopy(job.recipe, form));
        setQuery("from", "");
      },
      (problem: unknown) => abort.signal.aborted || setError(problem),
    );
    return () => abort.abort();
  }, [form, from]);
  return from ? error : undefined;
}

type EditorProps = { form: Form; models: Model[]; datasets: Dataset[]; uploaded: () => void };

function Editor({ form, models, datasets, uploaded }: EditorProps) {
  const [refused, setRefused] = useState<{ about: string; error: unknown }>();
  const [busy, setBusy] = useState(false);
  const now = recipe.value;
  // While the text is broken, the form shows what it last meant.
  const last = useRef(now ?? {});
  const seen = (last.current = now ?? last.current);
  const started = read(seen, "model") !== undefined && read(seen, "dataset.path") !== undefined;
  const planned = usePlan(now === null ? undefined : started ? text.value : null);
  // A refusal is of one recipe: it goes when that changes.
  const error = refused?.about === text.value ? refused.error : planned.error;
  const fault = faultOf(form, error);
  const options = useMemo(() => {
    const files = datasets.map(({ id, filename, rows }) => ({ value: id, label: `${filename} · ${rows ?? "?"} · ${id.slice(0, 11)}…` }));
    return { model: models.map(({ id }) => ({ value: id, label: id })), "dataset.path": files, "evaluation.dataset.path": files };
  }, [models, datasets]);

  useEffect(() => {
    if (refused === undefined) return;
    const faulty = document.querySelector<HTMLElement>("fieldset.recipe [aria-invalid='true']");
    if (faulty) faulty.focus();
    else scrollTo({ top: 0 });
  }, [refused]);

  const set = (path: string, value: unknown) => change(form, (before) => (path === "method.type" ? withMethod(before, String(value)) : write(before, path, value)));

  async function send(force: boolean): Promise<void> {
    const about = text.value;
    setBusy(true);
    setRefused(undefined);
    try {
      go(["jobs", (await submit(force)).id]);
    } catch (problem) {
      setRefused({ about, error: problem });
      setBusy(false);
    }
  }

  const unreachable = error instanceof ApiError && error.code === "unreachable";
  const tooLarge = error instanceof ApiError && error.code === "does_not_fit";
  return (
    <>
      <div class="row">
        <h1>{t("newJob")}</h1>
        <button class="plain" onClick={startOver}>
          {t("startOver")}
        </button>
      </div>
      {error !== undefined && !fault && <Problem error={error} {...(unreachable && error === planned.error && { again: planned.again })} />}
      <div class="new-job">
        <RecipeForm form={form} recipe={seen} broken={now === null} fault={fault} options={options} set={set}>
          <DatasetPanel recipe={seen} choose={(id) => set("dataset.path", id)} uploaded={uploaded} />
        </RecipeForm>
        <aside>
          <PlanView
            planned={planned}
            started={started}
            apply={(suggestion) => change(form, (before) => merge(before, suggestion))}
          />
          <div class="row submit">
            <button class="primary" disabled={busy || now === null} onClick={() => send(false)}>
              {t("submit")}
            </button>
            {tooLarge && (
              <button class="danger" disabled={busy} onClick={() => send(true)}>
                {t("submitAnyway")}
              </button>
            )}
          </div>
          <JsonPane />
        </aside>
      </div>
    </>
  );
}

function faultOf(form: Form, error: unknown): { path: string; message: string } | undefined {
  if (!(error instanceof ApiError) || error.param === null) return undefined;
  const field = fieldAt(form, error.param);
  return field && { path: field.path, message: error.message };
}
