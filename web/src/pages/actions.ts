// What can be done with a job in its status, as docs/jobs.md says.
import { post, remove } from "../api";
import type { Status } from "../types";
import type { Word } from "../words";

export type Action = "pause" | "resume" | "cancel" | "retry" | "delete";

export const ACTION_WORDS: Record<Action, Word> = {
  pause: "pause",
  resume: "resume",
  cancel: "cancel",
  retry: "retryJob",
  delete: "delete",
};

const POSSIBLE: Record<Status, Action[]> = {
  queued: ["pause", "cancel"],
  running: ["pause", "cancel"],
  paused: ["resume", "cancel"],
  succeeded: ["delete"],
  failed: ["retry", "delete"],
  cancelled: ["retry", "delete"],
};

export const possible = (status: Status): Action[] => POSSIBLE[status];

export function act(action: Action, jobId: string): Promise<unknown> {
  return action === "delete" ? remove(`/jobs/${jobId}`) : post(`/jobs/${jobId}/${action}`);
}

export function asCurl(method: "GET" | "POST" | "DELETE", path: string, json?: string): string {
  const body = json === undefined ? "" : ` --json ${quoted(json)}`;
  return `curl -X ${method} -H "Authorization: Bearer $FINETUNED_API_KEY"${body} ${location.origin}${path}`;
}

export const asSubmit = (json: string): string => `finetuned submit - --watch <<'RECIPE'\n${json}\nRECIPE`;

// For a POSIX shell.
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
