import { get } from "../../api";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import type { JobEvent, Sample } from "../../types";
import { t } from "../../words";

// The answers to each prompt, one column for each evaluation.
export function Samples({ id, events }: { id: string; events: JobEvent[] }) {
  const steps = [...new Set(events.filter((event) => event.type === "sample").map((event) => Number(event.data.step)))];
  steps.sort((a, b) => a - b);
  const { data, error } = useLoaded(async (signal) => {
    const pages = await Promise.all(steps.map((step) => get<{ data: Sample[] }>(`/jobs/${id}/samples?step=${step}`, signal)));
    return pages.flatMap((page) => page.data);
  }, [id, steps.join()]);
  if (error !== undefined) return <Problem error={error} />;
  if (steps.length === 0 || !data) return <p class="quiet">{t("noSamples")}</p>;
  const indices = [...new Set(data.map((sample) => sample.index))].sort((a, b) => a - b);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={t("samples")}>
      <table class="plain samples">
        <thead>
          <tr>
            <th scope="col">{t("prompt")}</th>
            <th scope="col">{t("expected")}</th>
            {steps.map((step) => (
              <th scope="col">
                {t("step")} {step}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {indices.map((index) => {
            const row = data.filter((sample) => sample.index === index);
            return (
              <tr>
                <td>{row[0]!.prompt}</td>
                <td>{row[0]!.expected}</td>
                {steps.map((step) => (
                  <td>{row.find((sample) => sample.step === step)?.generated ?? "–"}</td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
