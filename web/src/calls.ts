// What the page can have done, as a request, as a curl call and as a command. The page sends these very requests. The
// key is never in them: both forms read it from FINETUNED_API_KEY.
export type Call = {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  body?: unknown;
  // Name of a file that is uploaded.
  file?: string;
  // The words of the command after "finetuned", if there is one, and what it reads from stdin.
  command?: readonly string[];
  input?: string;
};

const HOME = "http://127.0.0.1:8000";
const END = "JSON";
export const DAY_MS = 86_400_000;

export const showJob = (id: string): Call => ({ method: "GET", path: `/jobs/${id}`, command: ["watch", id] });
export const pauseJob = (id: string): Call => ({ method: "POST", path: `/jobs/${id}/pause`, command: ["pause", id] });
export const resumeJob = (id: string): Call => ({ method: "POST", path: `/jobs/${id}/resume`, command: ["resume", id] });
export const cancelJob = (id: string): Call => ({ method: "POST", path: `/jobs/${id}/cancel`, command: ["cancel", id] });
export const retryJob = (id: string): Call => ({ method: "POST", path: `/jobs/${id}/retry`, command: ["retry", id] });
export const deleteJob = (id: string): Call => ({ method: "DELETE", path: `/jobs/${id}`, command: ["delete", id] });
export const exportJob = (id: string, source: string, format: string): Call => ({
  method: "POST",
  path: `/jobs/${id}/exports`,
  body: { format, source },
  command: ["export", id, "--format", format, "--source", source],
});
export type WantedPush = { repo: string; secret: string; artifact: string; private: boolean; revision: string | null };
export const pushJob = (id: string, push: WantedPush): Call => ({
  method: "POST",
  path: `/jobs/${id}/pushes`,
  body: push,
  command: [
    ...["push", id, push.repo, "--artifact", push.artifact, "--secret", push.secret],
    ...(push.private ? [] : ["--public"]),
    ...(push.revision === null ? [] : ["--revision", push.revision]),
  ],
});
export type WantedEvaluation = { dataset: string; checkpoint: number | null; limit: number; max_new_tokens: number };
export const evaluateJob = (id: string, evaluation: WantedEvaluation): Call => ({
  method: "POST",
  path: `/jobs/${id}/evaluations`,
  body: evaluation,
  command: [
    ...["evaluate", id, "--dataset", evaluation.dataset],
    ...(evaluation.checkpoint === null ? [] : ["--checkpoint", String(evaluation.checkpoint)]),
    ...["--limit", String(evaluation.limit), "--max-new-tokens", String(evaluation.max_new_tokens)],
  ],
});
export const deleteEvaluation = (id: string, evaluation: string): Call => ({ method: "DELETE", path: `/jobs/${id}/evaluations/${evaluation}` });
export const rateAnswer = (id: string, verdict: unknown): Call => ({ method: "POST", path: `/jobs/${id}/ratings`, body: verdict });
export const deleteRating = (id: string, rating: string): Call => ({ method: "DELETE", path: `/jobs/${id}/ratings/${rating}` });
export const downloadRatings = (id: string, method: "kto" | "dpo"): Call => ({ method: "GET", path: `/jobs/${id}/ratings-${method}.jsonl` });
export const cloneJob = (id: string, recipe: unknown): Call => ({ method: "POST", path: "/jobs", body: recipe, command: ["clone", id] });
// A text as body is the JSON itself.
export const submitJob = (json: string): Call => ({ method: "POST", path: "/jobs", body: json, command: ["submit", "-", "--watch"], input: json });

// The command asks with the temperature and the seed alone.
type Prompt = { messages: readonly { content: string | null }[]; temperature: number; seed: number };
export const chatWith = (jobId: string, { key, step }: { key: string; step: number | null }, body: Prompt): Call => ({
  method: "POST",
  path: "/v1/chat/completions",
  body,
  command: [
    ...["chat", jobId, body.messages.at(-1)?.content ?? ""],
    ...(key === "base" ? ["--with", "base"] : []),
    ...(step === null ? [] : ["--checkpoint", String(step)]),
    ...["--temperature", String(body.temperature), "--seed", String(body.seed)],
  ],
});

export const showSweep = (id: string): Call => ({ method: "GET", path: `/sweeps/${id}`, command: ["sweep", "show", id] });
export const createSweep = (recipe: unknown, grid: Readonly<Record<string, readonly unknown[]>>): Call => ({
  method: "POST",
  path: "/sweeps",
  body: { recipe, grid },
  command: ["sweep", "submit", "-", ...Object.entries(grid).flatMap(([field, values]) => ["--grid", `${field}=${values.map((each) => JSON.stringify(each)).join(",")}`])],
  input: JSON.stringify(recipe),
});
export const stopSweep = (id: string, keep: string | null): Call => ({
  method: "POST",
  path: `/sweeps/${id}/cancel${keep ? `?keep=${keep}` : ""}`,
  command: ["sweep", "stop", id, ...(keep ? ["--keep", keep] : [])],
});

export const uploadDataset = (file: string): Call => ({ method: "POST", path: "/datasets", file, command: ["datasets", "add", file] });
export const deleteDataset = (id: string): Call => ({ method: "DELETE", path: `/datasets/${id}`, command: ["datasets", "delete", id] });

// `days` until it expires, or null for never.
export type NewKey = { owner: string; name: string | null; admin: boolean; days: number | null };
export const createKey = ({ owner, name, admin, days }: NewKey, now = Date.now()): Call => ({
  method: "POST",
  path: "/keys",
  body: { owner, name, admin, ...(days !== null && { expires_at: new Date(now + days * DAY_MS).toISOString() }) },
  command: ["keys", "create", "--owner", owner, ...(name ? ["--name", name] : []), ...(admin ? ["--admin"] : []), ...(days === null ? [] : ["--days", String(days)])],
});
export const revokeKey = (id: string): Call => ({ method: "DELETE", path: `/keys/${id}`, command: ["keys", "revoke", id] });

export type Limits = { running_jobs: number | null; queued_jobs: number | null; bytes: number | null };
export const setLimits = (owner: string, limits: Limits): Call => ({
  method: "PUT",
  path: `/quotas/${encodeURIComponent(owner)}`,
  body: limits,
  command: ["quotas", "set", owner, ...Object.entries(limits).flatMap(([name, limit]) => (limit === null ? [] : [`--${name.replace("_", "-")}`, String(limit)]))],
});

// `value` is what the page sends; what is copied has "..." in its place, and the command asks for it.
export const setSecret = (name: string, value: string): Call => ({ method: "PUT", path: `/secrets/${encodeURIComponent(name)}`, body: { value }, command: ["secrets", "set", name] });
export const deleteSecret = (name: string): Call => ({ method: "DELETE", path: `/secrets/${encodeURIComponent(name)}`, command: ["secrets", "delete", name] });

export const addWebhook = (url: string, events: readonly string[]): Call => ({
  method: "POST",
  path: "/webhooks",
  body: { url, events },
  command: ["webhooks", "add", url, ...events.flatMap((each) => ["--event", each])],
});
export const testWebhook = (id: string): Call => ({ method: "POST", path: `/webhooks/${id}/test`, command: ["webhooks", "test", id] });
export const enableWebhook = (id: string): Call => ({ method: "PATCH", path: `/webhooks/${id}`, body: { enabled: true }, command: ["webhooks", "enable", id] });
export const disableWebhook = (id: string): Call => ({ method: "PATCH", path: `/webhooks/${id}`, body: { enabled: false }, command: ["webhooks", "disable", id] });
export const deleteWebhook = (id: string): Call => ({ method: "DELETE", path: `/webhooks/${id}`, command: ["webhooks", "delete", id] });
export const retryDelivery = (id: string): Call => ({ method: "POST", path: `/webhooks/deliveries/${id}/retry`, command: ["webhooks", "retry", id] });

export function asCurl({ method, path, body, file }: Call, origin: string): string {
  const json = typeof body === "string" ? body : JSON.stringify(body);
  const sent = file !== undefined ? ` -F ${quoted(`file=@${file}`)}` : body !== undefined ? ` --json ${quoted(json)}` : "";
  return `curl -X ${method} -H "Authorization: Bearer $FINETUNED_API_KEY"${sent} ${quoted(origin + path)}`;
}

export function asCommand({ command, input }: Call, origin: string): string | undefined {
  if (!command) return undefined;
  const elsewhere = origin === HOME ? [] : ["--url", origin];
  const line = ["finetuned", ...command, ...elsewhere].map(quoted).join(" ");
  return input === undefined ? line : `${line} <<'${END}'\n${input}\n${END}`;
}

// For a POSIX shell.
const quoted = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
