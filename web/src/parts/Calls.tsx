// What a page can have done, to be copied as a command and as a curl call.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Call, asCommand, asCurl } from "../calls";
import { t } from "../words";
import { Copy } from "./Copy";

type Titled = { title: string; calls: readonly Call[] };

// `of` says whose calls they are, for those who cannot see where the button is.
export function Calls({ list, of }: { list: readonly Titled[]; of?: string }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button type="button" class="plain" aria-haspopup="dialog" aria-label={of && `${t("copy.as")}: ${of}`} onClick={() => setOpen(true)}>
        {t("copy.as")}
      </button>
      {open && <Dialog list={list} close={() => setOpen(false)} />}
    </>
  );
}

function Dialog({ list, close }: { list: readonly Titled[]; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const hasCommand = list.some(({ calls }) => calls.some(({ command }) => command));
  return (
    <dialog ref={dialog} class="calls" onClose={close} aria-labelledby="calls-title">
      <h2 id="calls-title">{t(hasCommand ? "copy.title" : "copy.curl")}</h2>
      <p class="quiet">{t(hasCommand ? "copy.key" : "copy.keyCurl")}</p>
      {list.map(({ title, calls }) => (
        <section>
          <h3>{title}</h3>
          {calls.every(({ command }) => command) && (
            <Form of={title} label={t("copy.command")} text={calls.map((call) => asCommand(call, location.origin)).join("\n")} />
          )}
          <Form of={title} label={t("copy.curl")} text={calls.map((call) => asCurl(call, location.origin)).join("\n")} />
        </section>
      ))}
      {/* Not a form: this may be inside one. */}
      <div class="row end">
        <button type="button" onClick={() => dialog.current?.close()}>
          {t("close")}
        </button>
      </div>
    </dialog>
  );
}

function Form({ of, label, text }: { of: string; label: string; text: string }) {
  return (
    <div class="call">
      <pre tabIndex={0} role="region" aria-label={`${of}: ${label}`}>
        {text}
      </pre>
      <Copy text={text} label={label} of={of} />
    </div>
  );
}
