// What can be done with a job in its status, as docs/jobs.md says.
import { send } from "../api";
import { type Call, cancelJob, deleteJob, pauseJob, resumeJob, retryJob } from "../calls";
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

const CALLS: Record<Action, (jobId: string) => Call> = { pause: pauseJob, resume: resumeJob, cancel: cancelJob, retry: retryJob, delete: deleteJob };

export const callOf = (action: Action, jobId: string): Call => CALLS[action](jobId);

export const act = (action: Action, jobId: string): Promise<unknown> => send(callOf(action, jobId));
