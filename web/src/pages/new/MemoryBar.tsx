import { memory as inMemory } from "../../format";
import { t } from "../../words";
import { stacked } from "./memory";
import type { DevicePlan } from "./plan";

const [WIDTH, HEIGHT] = [1000, 24];

// Memory by part against that of the device, whose end is a line.
export function MemoryBar({ plan: { memory, available } }: { plan: DevicePlan }) {
  const parts = stacked(memory);
  const scale = WIDTH / (Math.max(memory.total, available ?? 0) * 1.02);
  return (
    <div class="memory">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <rect class="room" width={(available ?? memory.total) * scale} height={HEIGHT} />
        {parts.map(({ part, start, size }) => (
          <rect class={`part-${part}`} x={start * scale} width={size * scale} height={HEIGHT} />
        ))}
        {available !== null && <line x1={available * scale} x2={available * scale} y2={HEIGHT} />}
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
      </ul>
    </div>
  );
}
