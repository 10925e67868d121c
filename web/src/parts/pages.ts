// A list of the API, newest first, of which older pages are read when the reader wants them.
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../api";

const LIMIT = 50;

type Page<T> = { data: T[]; has_more: boolean };
type Pages<T> = { rows?: T[]; hasMore: boolean; error?: unknown; older: () => void; reload: () => void };

export function usePages<T>(path: string, query: Readonly<Record<string, string>>, cursorOf: (row: T) => string): Pages<T> {
  const [found, setFound] = useState<{ rows?: T[]; hasMore: boolean; error?: unknown }>({ hasMore: false });
  const [round, setRound] = useState(0);
  const reading = useRef<AbortController>(undefined);
  const address = (more: Readonly<Record<string, string>>) => `${path}?${new URLSearchParams({ ...query, limit: String(LIMIT), ...more })}`;

  function read(before: T[], more: Readonly<Record<string, string>>): void {
    reading.current?.abort();
    const { signal } = (reading.current = new AbortController());
    get<Page<T>>(address(more), signal).then(
      (page) => signal.aborted || setFound({ rows: [...before, ...page.data], hasMore: page.has_more }),
      (error: unknown) => signal.aborted || setFound((now) => ({ ...now, error })),
    );
  }

  useEffect(() => {
    read([], {});
    return () => reading.current?.abort();
  }, [address({}), round]);
  const older = () => {
    const last = found.rows?.at(-1);
    if (last !== undefined) read(found.rows!, { after: cursorOf(last) });
  };
  return { ...found, older, reload: () => setRound((each) => each + 1) };
}
