// What every model is asked with, kept in the address.
import { route } from "../../route";

export type Sampling = { temperature: number; top_p: number; max_tokens: number; seed: number };

export const FIELDS = {
  temperature: { usual: 0.7, min: 0, max: 2, step: 0.05 },
  top_p: { usual: 1, min: 0, max: 1, step: 0.05 },
  max_tokens: { usual: 256, min: 1, max: 1_000_000, step: 1 },
  seed: { usual: 0, min: 0, max: 2 ** 32 - 1, step: 1 },
} as const satisfies Record<keyof Sampling, { usual: number; min: number; max: number; step: number }>;

export function readSetting(name: keyof Sampling): number {
  const { usual, min, max } = FIELDS[name];
  const given = route.value.query.get(name);
  const value = Number(given);
  return given === null || !Number.isFinite(value) || value < min || value > max ? usual : value;
}

export const readSampling = (): Sampling => ({
  temperature: readSetting("temperature"),
  top_p: readSetting("top_p"),
  max_tokens: Math.round(readSetting("max_tokens")),
  seed: Math.round(readSetting("seed")),
});

export const readSystem = (): string => route.value.query.get("system") ?? "";
