import { memory as inMemory } from "../../format";
import { t } from "../../words";
import { stacked } from "./memory";
import type { DevicePlan } from "./plan";

const [WIDTH, HEIGHT] = [1000, 24];

type Props = { plan: DevicePlan; measured?: number | null };

// Memory by part against that of the device, whose end is a line, as is what was measured.
export function MemoryBar({ plan: { memory, available }, measured = null }: Props) {
  const parts = stacked(memory);
  const scale = WIDTH / (Math.max(memory.total, available ?? 0, measured ?? 0) * 1.02);
  return (
    <div class="memory">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <rect class="room" width={(available ?? memory.total) * scale} height={HEIGHT} />
        {parts.map(({ part, start, size }) => (
          <rect class={`part-${part}`} x={start * scale} width={size * scale} height={HEIGHT} />
        ))}
        {available !== null && <line x1={available * scale} x2={available * scale} y2={HEIGHT} />}
        {measured !== null && <line class="measured" x1={measured * scale} x2={measured * scale} y2={HEIGHT} />}
      </svg>
      <ul>
        {parts.map(({ part, size }) => (
          <li>
            <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">
              <rect class={`part-${part}`} width="10" height="10" />
            </svg>{" "}
            {t(`memory.${part}`)} <span class="number">{inMemory(size)}</span>
          </li>
        ))}
        {measured !== null && (
          <li>
            <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">
              <line class="measured" x1="5" x2="5" y2="10" />
            </svg>{" "}
            {t("usage.measured")} <span class="number">{inMemory(measured)}</span>
          </li>
        )}
      </ul>
    </div>
  );
}
