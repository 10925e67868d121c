import type { Limits } from "../../calls";

export type Key = {
  id: string;
  owner: string;
  name: string | null;
  admin: boolean;
  hint: string;
  created_at: string;
  revoked_at: string | null;
  expires_at: string | null;
};
export type NewlyMade = Key & { secret: string | null };

export type Quota = { owner: string; limits: Limits; own_limits: Limits; used: { running_jobs: number; queued_jobs: number; bytes: number } };

export type Entry = {
  seq: number;
  at: string;
  owner: string;
  key_id: string | null;
  action: string;
  target: string | null;
  request_id: string;
  data: Record<string, unknown> | null;
};
