export const MODELS = ["base", "adapter"] as const;
export type Model = (typeof MODELS)[number];
export const SCORES = ["loss", "exact_match", "token_f1", "rouge_l"] as const;
export type Score = (typeof SCORES)[number];

export type Evaluation = {
  id: string;
  job_id: string;
  checkpoint: number | null;
  dataset: { path: string; filename: string | null; format: string; columns: Record<string, string> | null; sha256: string };
  settings: Record<string, number>;
  status: "queued" | "running" | "succeeded" | "failed";
  waits: string | null;
  examples: number;
  done: number;
  scores: Record<Model, Record<Score, number>> | null;
  failure: { message: string } | null;
};

export type Row = { number: number; prompt: string; reference: string } & Record<Model, { answer: string }>;
export type Page<T> = { data: T[]; has_more: boolean };

export const nameOf = ({ dataset }: Evaluation): string => dataset.filename ?? dataset.path;
