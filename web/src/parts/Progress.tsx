import { duration, percent } from "../format";
import { t } from "../words";

export function Progress({ done, left }: { done: number | null; left: number | null }) {
  if (done === null) return <span class="quiet">–</span>;
  return (
    <span class="progress">
      <progress max={1} value={done} aria-label={t("progress")} />
      <span class="number">{percent(done)}</span>
      {left !== null && left > 0 && <span class="quiet">{t("left", { time: duration(left) })}</span>}
    </span>
  );
}
