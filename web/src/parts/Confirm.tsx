// Asks before something is destroyed, and says what.
import { useEffect, useRef } from "preact/hooks";
import { t } from "../words";

type Props = { title: string; text: string; action: string; confirm: () => void; close: () => void };

export function Confirm({ title, text, action, confirm, close }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="confirm-title">
      <h2 id="confirm-title">{title}</h2>
      <p>{text}</p>
      <form method="dialog" class="row end">
        <button autofocus>{t("keep")}</button>
        <button class="danger" onClick={confirm}>
          {action}
        </button>
      </form>
    </dialog>
  );
}
