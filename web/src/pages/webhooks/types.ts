export type Webhook = { id: string; owner: string; url: string; events: string[]; enabled: boolean; created_at: string };
export type NewlyAdded = Webhook & { secret: string | null };

export type Delivery = {
  id: string;
  type: string;
  payload: unknown;
  status: "pending" | "delivered" | "failed";
  attempts: number;
  next_attempt_at: string | null;
  response_status: number | null;
  error: string | null;
  created_at: string;
  delivered_at: string | null;
};
