// What a page reads once, and again when what it is about changes.
import { useCallback, useEffect, useState } from "preact/hooks";

type Loaded<T> = { data?: T; error?: unknown; reload: () => void };

export function useLoaded<T>(read: (signal: AbortSignal) => Promise<T>, about: readonly unknown[]): Loaded<T> {
  const [found, setFound] = useState<{ data?: T; error?: unknown }>({});
  const [round, setRound] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    read(abort.signal).then(
      (data) => setFound({ data }),
      (error: unknown) => abort.signal.aborted || setFound((before) => ({ ...before, error })),
    );
    return () => abort.abort();
  }, [...about, round]);
  return { ...found, reload: useCallback(() => setRound((each) => each + 1), []) };
}
