import { useState } from "preact/hooks";
import { t } from "../words";

const SHOWN_MS = 1500;

export function Copy({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  async function copy(): Promise<void> {
    // Without https or loopback a page has no clipboard: the reader copies from a prompt.
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else prompt(label, text);
    setDone(true);
    setTimeout(() => setDone(false), SHOWN_MS);
  }
  return (
    <button class="plain" title={text} onClick={copy}>
      {done ? t("copied") : label}
    </button>
  );
}
