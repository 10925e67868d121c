// What the recipe needs, as the API says after each pause in typing.
import { useEffect, useState } from "preact/hooks";
import { ApiError, post } from "../../api";
import { useDebounced } from "../../parts/debounced";
import type { Recipe } from "../../recipe/values";

export const PARTS = [
  "weights",
  "adapter",
  "gradients",
  "optimizer",
  "activations",
  "logits",
  "communication_buffers",
  "overhead",
] as const;
export type Part = (typeof PARTS)[number];
export type Memory = Record<Part | "total", number>;

export type DevicePlan = {
  device: string;
  devices: number;
  precision: string;
  memory: Memory;
  available: number | null;
  fits: boolean | null;
  suggestions: Recipe[];
  eta_seconds: number | null;
};

export type Plan = {
  parameters: { total: number; trainable: number } | null;
  work: { train_examples: number; effective_batch_size: number; steps: number; tokens: number | null };
  devices: DevicePlan[];
  disk: { adapters: number; total: number } | null;
  expected_seconds: number | null;
  unknown: Record<string, string>;
  warnings: string[];
};

export type Planned = { plan?: Plan; error?: unknown; busy: boolean; again: () => void };

const RETRY_MS = 2000;

// The last answer stays in sight until the next one comes. `text` is null if there is nothing to plan, and undefined
// while it cannot be said yet.
export function usePlan(text: string | null | undefined): Planned {
  const settled = useDebounced(text);
  const [round, setRound] = useState(0);
  const [found, setFound] = useState<{ about?: string; plan?: Plan; error?: unknown }>({});
  const again = () => setRound((each) => each + 1);
  useEffect(() => {
    if (settled === undefined) return;
    if (settled === null) {
      setFound({});
      return;
    }
    const abort = new AbortController();
    let timer: number | undefined;
    post<Plan>("/plans", settled, { signal: abort.signal }).then(
      (plan) => setFound({ about: settled, plan }),
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setFound(({ plan }) => ({ about: settled, ...(plan && { plan }), error }));
        if (error instanceof ApiError && error.code === "unreachable") timer = setTimeout(again, RETRY_MS);
      },
    );
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [settled, round]);
  const { about, ...rest } = found;
  return { ...rest, busy: typeof text === "string" && about !== text, again };
}
