import { useEffect, useRef, useState } from "preact/hooks";
import { send } from "../../api";
import { type Limits, setLimits } from "../../calls";
import { Calls } from "../../parts/Calls";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import type { Quota } from "./types";

const GB = 1e9;

type Props = { quota: Quota; done: () => void; close: () => void };

export function EditLimits({ quota, done, close }: Props) {
  const { owner } = quota;
  const dialog = useRef<HTMLDialogElement>(null);
  const [limits, setTheirs] = useState(quota.own_limits);
  const [error, setError] = useState<unknown>();
  useEffect(() => dialog.current?.showModal(), []);

  async function save(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    try {
      await send(setLimits(owner, limits));
      done();
      dialog.current?.close();
    } catch (problem) {
      setError(problem);
    }
  }

  const set = (name: keyof Limits, scale: number) => (text: string) => setTheirs({ ...limits, [name]: text === "" ? null : Math.round(Number(text) * scale) });
  const title = t("owners.limitsOf", { owner: owner === "*" ? t("owners.everybody") : owner });
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="limits-title">
      <h2 id="limits-title">{title}</h2>
      <p class="quiet">{t(owner === "*" ? "owners.emptyAll" : "owners.empty")}</p>
      <form class="stack" onSubmit={save}>
        <Field word="owners.running" value={limits.running_jobs} step="1" set={set("running_jobs", 1)} />
        <Field word="owners.queued" value={limits.queued_jobs} step="1" set={set("queued_jobs", 1)} />
        <Field word="owners.gigabytes" value={limits.bytes === null ? null : limits.bytes / GB} step="any" set={set("bytes", GB)} />
        {error !== undefined && <Problem error={error} />}
        <div class="row end">
          <Calls list={[{ title, calls: [setLimits(owner, limits)] }]} />
          <button type="button" onClick={() => dialog.current?.close()}>
            {t("owners.discard")}
          </button>
          <button class="primary">{t("owners.save")}</button>
        </div>
      </form>
    </dialog>
  );
}

type FieldProps = { word: "owners.running" | "owners.queued" | "owners.gigabytes"; value: number | null; step: string; set: (text: string) => void };

function Field({ word, value, step, set }: FieldProps) {
  return (
    <label class="stack">
      {t(word)}
      <input type="number" min={0} step={step} value={value ?? ""} onInput={(event) => set(event.currentTarget.value)} />
    </label>
  );
}
