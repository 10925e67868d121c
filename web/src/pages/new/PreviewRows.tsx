import { useState } from "preact/hooks";
import { get } from "../../api";
import { useDebounced } from "../../parts/debounced";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import { type Preview, type PreviewExample, runs } from "./datasets";

const ROWS = 3;

export function PreviewRows({ id, query }: { id: string; query: Record<string, string> }) {
  const [offset, setOffset] = useState(0);
  const settled = useDebounced(new URLSearchParams(query).toString());
  const { data, error, reload } = useLoaded(
    (signal) => get<Preview>(`/datasets/${id}/preview?${settled}&offset=${offset}&limit=${ROWS}`, signal),
    [id, settled, offset],
  );
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  return (
    <details open class="preview">
      <summary>{t("data.preview")}</summary>
      <div class="row">
        <span class="quiet">{t("data.legend")}</span>
        <button type="button" disabled={offset === 0} onClick={() => setOffset(Math.max(0, offset - ROWS))}>
          {t("previous")}
        </button>
        <button type="button" disabled={!data.has_more} onClick={() => setOffset(offset + ROWS)}>
          {t("next")}
        </button>
      </div>
      {data.data.map((example) => (
        <Example example={example} />
      ))}
    </details>
  );
}

function Example({ example: { row, texts, desirable, dropped, problem } }: { example: PreviewExample }) {
  return (
    <section>
      <h3>
        {t("data.row")} {row}
        {desirable !== null && ` · ${t(desirable ? "data.desirable" : "data.undesirable")}`}
      </h3>
      {problem !== null && (
        <p class="problem" lang="en">
          {problem}
        </p>
      )}
      {dropped && <p class="problem">{t("data.droppedExample")}</p>}
      {texts.map((text) => (
        <>
          {text.answer && <h4>{t(`data.${text.answer}`)}</h4>}
          <pre tabIndex={0}>
            {runs(text).map(({ text: piece, learned, cut }) => {
              const shown = learned ? <mark>{piece}</mark> : piece;
              return cut ? <s>{shown}</s> : shown;
            })}
          </pre>
        </>
      ))}
    </section>
  );
}
