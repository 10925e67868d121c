// Reads a list again and again while work in it is open.
import { useEffect } from "preact/hooks";

const POLL_MS = 2000;

export const isOpen = ({ status }: { status: string }): boolean => status === "queued" || status === "running";

// `ended` runs whenever less is open than before.
export function usePolling(rows: readonly { status: string }[] | undefined, reload: () => void, ended: () => void = () => {}): void {
  const open = rows?.filter(isOpen).length ?? 0;
  useEffect(() => {
    if (open === 0) return;
    const timer = setInterval(reload, POLL_MS);
    return () => {
      clearInterval(timer);
      ended();
    };
  }, [open]);
}
