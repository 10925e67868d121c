// A status is told apart by its shape as well as by its colour.
import type { Status as Name } from "../types";
import { t } from "../words";

const SHAPES: Record<Name, string> = {
  queued: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11zM8 5v3l2 2",
  running: "M5 3.5l7 4.5l-7 4.5z",
  paused: "M5.5 3.5v9M10.5 3.5v9",
  succeeded: "M3 8.5l3.5 3.5l6.5-8",
  failed: "M4 4l8 8M12 4l-8 8",
  cancelled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11zM4.2 11.8l7.6-7.6",
};

export function Status({ status, requested }: { status: Name; requested?: string | null }) {
  const word = requested ? ` · ${t(`request.${requested as "cancel" | "force_cancel" | "pause" | "preempt"}`)}` : "";
  return (
    <span class={`status ${status}`}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d={SHAPES[status]} />
      </svg>
      {t(`status.${status}`)}
      {word}
    </span>
  );
}
