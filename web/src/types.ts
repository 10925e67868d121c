// The parts of the API's answers that the page shows; docs/api.md describes them.
export type Status = "queued" | "running" | "paused" | "succeeded" | "failed" | "cancelled";

export type Queue = { position: number; reason: string; code: string; values: Record<string, unknown>; estimated_start_at: string | null };

export type Session = { owner: string | null; admin: boolean; key_needed: boolean; signed_in: boolean; version: string };

export type Summary = {
  id: string;
  name: string | null;
  owner: string;
  status: Status;
  requested_action: string | null;
  model: string;
  dataset: string;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  step: number | null;
  total_steps: number | null;
  progress: number | null;
  eta_seconds: number | null;
  loss: number | null;
  eval_loss: number | null;
  reward_accuracy: number | null;
  reward_margin: number | null;
  losses: number[];
  queue: Queue | null;
  failure_code: string | null;
  failure_message: string | null;
  sweep_id: string | null;
};

export type Job = {
  id: string;
  name: string | null;
  owner: string;
  status: Status;
  requested_action: string | null;
  queue: Queue | null;
  devices: { worker: string; number: number }[];
  attempt: number;
  retries: number;
  worker: string | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  recipe: Record<string, unknown> & { model: string; dataset: { path: string; filename: string | null } };
  sweep_id: string | null;
  command: string | null;
  progress: null | {
    step: number;
    total_steps: number | null;
    epoch: number;
    loss: number;
    eval_loss: number | null;
    reward_accuracy: number | null;
    reward_margin: number | null;
    best_step: number | null;
    stopped_early: boolean;
    tokens_per_second: number;
    progress: number;
    eta_seconds: number;
  };
  failure: null | { code: string; message: string; param: string | null; retryable: boolean; log_tail: string | null };
  batch: Record<string, unknown> | null;
  exit_report: ExitReport | null;
  tracking: Tracked[];
};

export type Tracked = {
  type: "mlflow" | "wandb";
  url: string | null;
  status: "waiting" | "following" | "retrying" | "complete" | "given_up";
  behind: number;
  error: string | null;
};

export type ExitReport = {
  stop_requested: number | null;
  ended: number;
  seconds: number;
  processes: { pid: number; name: string; killed: boolean }[];
  memory_before: Record<string, number>;
  memory_after: Record<string, number>;
};

export type Usage = {
  device: string | null;
  devices: number | null;
  precision: string | null;
  steps: number;
  tokens: number;
  peak_memory_bytes: number | null;
  expected_seconds: number | null;
  training_seconds: number;
  artifact_bytes: number;
  run_bytes: number | null;
};

export type Metrics = {
  columns: Record<string, (number | boolean | null)[]>;
  evaluations: { step: number[]; eval_loss: number[]; time: number[] };
  total: number;
  thinned: boolean;
};

export type Sweep = {
  id: string;
  name: string | null;
  owner: string;
  created_at: string;
  fields: string[];
  jobs: {
    id: string;
    values: Record<string, unknown>;
    status: Status;
    loss: number | null;
    eval_loss: number | null;
    reward_accuracy: number | null;
    reward_margin: number | null;
    step: number | null;
    total_steps: number | null;
  }[];
  best: string | null;
};

export type JobEvent = { id: string; type: string; time: number; data: Record<string, unknown> };

export type Sample = { step: number; index: number; prompt: string; expected: string; generated: string };

export const EXPORT_FORMATS = ["portable", "gguf", "merged", "merged-gguf-f16", "merged-gguf-q8_0"] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

export type Export = {
  id: string;
  format: ExportFormat;
  source: string;
  status: "queued" | "running" | "succeeded" | "failed";
  failure: { message: string } | null;
};

export type Artifact = {
  name: string;
  kind: string;
  step: number | null;
  bytes: number;
  sha256: string;
  eval_loss: number | null;
  best: boolean;
};

export type Device = {
  number: number;
  name: string;
  memory_bytes: number | null;
  status: "free" | "leased" | "busy" | "unavailable";
  jobs: string[];
  jobs_of_other_owners: number;
  reason: string | null;
};

export type Worker = {
  name: string;
  address: string;
  status: "ready" | "draining" | "lost";
  seen_at: string;
  disk: { free_bytes: number; total_bytes: number; low: boolean } | null;
  devices: Device[];
};
