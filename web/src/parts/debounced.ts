// The value as it was when the reader last paused.
import { useEffect, useState } from "preact/hooks";

const PAUSE_MS = 400;

export function useDebounced<T>(value: T): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}
