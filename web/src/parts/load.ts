// What a page reads once, and again when what it is about changes.
import { ApiError } from "../api";
import { useCallback, useEffect, useState } from "preact/hooks";

const RETRY_MS = 2000;

type Loaded<T> = { data?: T; error?: unknown; reload: () => void };

export function useLoaded<T>(read: (signal: AbortSignal) => Promise<T>, about: readonly unknown[]): Loaded<T> {
  const [found, setFound] = useState<{ data?: T; error?: unknown }>({});
  const [round, setRound] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let timer: number | undefined;
    read(abort.signal).then(
      (data) => abort.signal.aborted || setFound({ data }),
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setFound((before) => ({ ...before, error }));
        if (error instanceof ApiError && error.code === "unreachable") timer = setTimeout(() => setRound((each) => each + 1), RETRY_MS);
      },
    );
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [...about, round]);
  return { ...found, reload: useCallback(() => setRound((each) => each + 1), []) };
}
