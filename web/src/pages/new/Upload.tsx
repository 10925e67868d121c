import { useEffect, useRef, useState } from "preact/hooks";
import { percent } from "../../format";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import { type Dataset, upload } from "./datasets";

export function Upload({ done }: { done: (dataset: Dataset) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const sending = useRef<AbortController>(undefined);
  const [state, setState] = useState<{ name?: string; part?: number; error?: unknown }>({});
  useEffect(() => () => sending.current?.abort(), []);

  async function send(file: File | undefined): Promise<void> {
    if (!file) return;
    const abort = (sending.current = new AbortController());
    setState({ name: file.name, part: 0 });
    try {
      const made = await upload(file, (part) => setState({ name: file.name, part }), abort.signal);
      setState({});
      done(made);
    } catch (error) {
      setState(abort.signal.aborted ? {} : { error });
    }
    // The same file, corrected, can be chosen again.
    if (input.current) input.current.value = "";
  }

  const { name, part, error } = state;
  return (
    <div class="row">
      <label class={name === undefined ? "file" : "file disabled"}>
        {t("data.upload")}
        {/* The browser would say "no file chosen" in a language of its own. */}
        <input ref={input} type="file" disabled={name !== undefined} onChange={(event) => send(event.currentTarget.files?.[0])} />
      </label>
      {name !== undefined && (
        <span class="row" role="status">
          {t("data.uploading", { name })} <progress max={1} value={part} aria-label={t("progress")} />
          <span class="number">{percent(part ?? 0)}</span>
          <button type="button" onClick={() => sending.current?.abort()}>
            {t("data.stop")}
          </button>
        </span>
      )}
      {error !== undefined && <Problem error={error} />}
    </div>
  );
}
