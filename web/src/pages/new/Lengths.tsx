import { get } from "../../api";
import { integer, percent } from "../../format";
import { useDebounced } from "../../parts/debounced";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { t } from "../../words";
import type { PairReport, TokenReport } from "./datasets";

const [WIDTH, HEIGHT] = [200, 12];
const PARTS = ["prompt", "chosen", "rejected"] as const;
const PERCENTILES = ["50", "90", "100"];

export function Lengths({ id, query }: { id: string; query: Record<string, string> }) {
  const settled = useDebounced(new URLSearchParams(query).toString());
  const { data, error, reload } = useLoaded((signal) => get<TokenReport>(`/datasets/${id}/report?${settled}`, signal), [id, settled]);
  if (error !== undefined) return <Problem error={error} again={reload} />;
  if (!data) return <p class="quiet">{t("loading")}</p>;
  const most = Math.max(...data.histogram.map((bucket) => bucket.examples), 1);
  return (
    <details open>
      <summary>{t("data.lengths")}</summary>
      <p>
        {data.supervised_fraction !== null && t("data.learned", { percent: percent(data.supervised_fraction) })}
        {" · "}
        {t("data.cut", { truncated: integer(data.truncated), dropped: integer(data.dropped), max: integer(data.max_length) })}
        {!data.complete && ` ${t("data.partly", { n: integer(data.examples) })}`}
      </p>
      {data.dropped_rows.length > 0 && <p class="quiet">{t("data.droppedRows", { rows: data.dropped_rows.join(", ") })}</p>}
      {data.pairs && <Pairs pairs={data.pairs} />}
      <table class="histogram">
        <tbody>
          {data.histogram.map(({ from_tokens, to_tokens, examples }) => (
            <tr>
              <th scope="row" class="number">
                {`${integer(from_tokens)}–${integer(to_tokens - 1)}`}
              </th>
              <td>
                <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
                  <rect class={from_tokens >= data.max_length ? "cut" : ""} width={(examples / most) * WIDTH} height={HEIGHT} />
                </svg>
              </td>
              <td class="number">{integer(examples)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}

function Pairs({ pairs }: { pairs: PairReport }) {
  return (
    <table class="plain">
      <thead>
        <tr>
          <td />
          <th scope="col">{t("data.mean")}</th>
          {PERCENTILES.map((percentile) => (
            <th scope="col">{percentile}%</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {PARTS.map((part) => (
          <tr>
            <th scope="row">{t(`data.${part}`)}</th>
            <td class="number">{integer(Math.round(pairs[part].mean))}</td>
            {PERCENTILES.map((percentile) => (
              <td class="number">{integer(pairs[part].percentiles[percentile] ?? 0)}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
