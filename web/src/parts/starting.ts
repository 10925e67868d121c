// Sends what a form starts, and keeps why it was refused.
import { useState } from "preact/hooks";
import { send } from "../api";
import type { Call } from "../calls";

// `sent` runs after an answer, whatever it was.
export function useStart(call: Call, sent: () => void): { start: (event: Event) => Promise<void>; problem: unknown } {
  const [problem, setProblem] = useState<unknown>();

  async function start(event: Event): Promise<void> {
    event.preventDefault();
    setProblem(undefined);
    try {
      await send(call);
    } catch (raised) {
      setProblem(raised);
    }
    sent();
  }

  return { start, problem };
}
