// An event stream that goes on after every loss of the connection, from the last event that arrived.
import { signal } from "@preact/signals";

export const connected = signal(true);

const RETRY_MS = 1000;
const HIDDEN_MS = 10_000;

// Reads until the returned function is called, or until `ended` when the connection ends. EventSource reconnects by
// itself, with Last-Event-ID, except after an HTTP error, such as that of a proxy whose API restarts.
// A tab that nobody looks at gives its connection back: a browser has six to one API, over all of its tabs.
export function listen(
  address: (lastId: string | null) => string,
  types: readonly string[],
  receive: (type: string, data: unknown) => void,
  ended: () => boolean = () => false,
): () => void {
  let source: EventSource;
  let timer: number | undefined;
  let lastId: string | null = null;

  function open(): void {
    source = new EventSource(address(lastId));
    source.onopen = () => {
      connected.value = true;
    };
    source.onerror = () => {
      if (ended()) {
        source.close();
        return;
      }
      connected.value = false;
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, RETRY_MS);
    };
    for (const type of types) {
      source.addEventListener(type, (event: MessageEvent<string>) => {
        lastId = event.lastEventId;
        receive(type, JSON.parse(event.data));
      });
    }
  }

  function onVisibility(): void {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => source.close(), HIDDEN_MS);
    else if (source.readyState === EventSource.CLOSED && !ended()) open();
  }

  open();
  document.addEventListener("visibilitychange", onVisibility);
  return () => {
    document.removeEventListener("visibilitychange", onVisibility);
    clearTimeout(timer);
    source.close();
    connected.value = true;
  };
}
