import { bytes, memory, compact, duration, integer } from "../../format";
import type { Recipe } from "../../recipe/values";
import { type Word, t } from "../../words";
import { flat } from "../recipes";
import { MemoryBar } from "./MemoryBar";
import type { DevicePlan, Plan, Planned } from "./plan";

type Props = { planned: Planned; started: boolean; apply: (change: Recipe) => void };

export function PlanView({ planned: { plan, error, busy }, started, apply }: Props) {
  const stale = plan !== undefined && error !== undefined;
  return (
    <section class="plan" aria-busy={busy}>
      <div class="row">
        <h2>{t("plan.title")}</h2>
        <span class="quiet" role="status">
          {busy ? t("plan.busy") : stale ? t("plan.stale") : ""}
        </span>
      </div>
      {!started && <p class="quiet">{t("plan.first")}</p>}
      {plan === undefined && error !== undefined && <p class="quiet">{t("plan.refused")}</p>}
      {plan && (
        <div class={busy || stale ? "stale" : ""}>
          <Facts plan={plan} />
          {plan.devices.length === 0 && <p>{t("plan.noDevices")}</p>}
          {plan.devices.map((device) => (
            <Device device={device} apply={apply} />
          ))}
          {plan.warnings.map((warning) => (
            <p class="warning" lang="en">
              {warning}
            </p>
          ))}
          <Unknown reasons={plan.unknown} />
        </div>
      )}
    </section>
  );
}

function Facts({ plan: { work, disk, devices, expected_seconds, parameters } }: { plan: Plan }) {
  const seconds = devices.find((device) => device.eta_seconds !== null)?.eta_seconds ?? expected_seconds;
  const facts: [Word, string][] = [
    ["plan.steps", integer(work.steps)],
    ["plan.examples", integer(work.train_examples)],
    ["plan.examplesPerStep", integer(work.effective_batch_size)],
    ["tokens", work.tokens === null ? "–" : compact(work.tokens)],
    ["time", seconds === null ? "–" : duration(seconds)],
    ["disk", disk ? bytes(disk.total) : "–"],
    ["plan.trained", parameters ? `${compact(parameters.trainable)} / ${compact(parameters.total)}` : "–"],
  ];
  return (
    <dl class="facts">
      {facts.map(([word, value]) => (
        <div>
          <dt>{t(word)}</dt>
          <dd class="number">{value}</dd>
        </div>
      ))}
    </dl>
  );
}

const SHAPES = { fits: "✓", tooClose: "≈", doesNotFit: "✕" };

function Device({ device, apply }: { device: DevicePlan; apply: (change: Recipe) => void }) {
  const verdict = device.fits === null ? "tooClose" : device.fits ? "fits" : "doesNotFit";
  const size = device.available === null ? memory(device.memory.total) : t("plan.of", { used: memory(device.memory.total), available: memory(device.available) });
  return (
    <section>
      <h3>
        {device.devices > 1 && `${device.devices} × `}
        {device.device} · {device.precision} <span class={`verdict ${verdict}`}>{`${SHAPES[verdict]} ${t(`plan.${verdict}`)}`}</span>
      </h3>
      <p class="number">{size}</p>
      <MemoryBar plan={device} />
      {device.suggestions.length > 0 && <p>{t("plan.suggestions")}</p>}
      <div class="row">
        {device.suggestions.map((change) => (
          <button type="button" onClick={() => apply(change)}>
            {t("plan.use", { change: inWords(change) })}
          </button>
        ))}
      </div>
    </section>
  );
}

const inWords = (change: Recipe): string =>
  Object.entries(flat(change))
    .map(([path, value]) => `${path} = ${value}`)
    .join(", ");

function Unknown({ reasons }: { reasons: Record<string, string> }) {
  if (Object.keys(reasons).length === 0) return null;
  return (
    <details>
      <summary>{t("plan.unknown")}</summary>
      <dl class="unknown" lang="en">
        {Object.entries(reasons).map(([part, reason]) => (
          <div>
            <dt>
              <code>{part}</code>
            </dt>
            <dd>{reason}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
