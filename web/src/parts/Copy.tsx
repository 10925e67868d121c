import { useState } from "preact/hooks";
import { t } from "../words";

const SHOWN_MS = 1500;

// `of` says what is copied where several such buttons are on a page.
export function Copy({ text, label, of }: { text: string; label: string; of?: string }) {
  const [done, setDone] = useState(false);
  async function copy(): Promise<void> {
    // Without https or loopback a page has no clipboard: the reader copies from a prompt.
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else prompt(label, text);
    setDone(true);
    setTimeout(() => setDone(false), SHOWN_MS);
  }
  return (
    <button type="button" class="plain" title={text} aria-label={of && !done ? `${label}: ${of}` : undefined} onClick={copy}>
      {done ? t("copied") : label}
    </button>
  );
}
