// A secret, the one time that the API shows it. Nothing of it is left when the dialog is closed.
import { useEffect, useRef } from "preact/hooks";
import { t } from "../words";
import { Copy } from "./Copy";

type Props = { title: string; secret: string | null; close: () => void };

export function Secret({ title, secret, close }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="secret-title">
      <h2 id="secret-title">{title}</h2>
      {secret === null ? (
        <p class="problem">{t("secret.gone")}</p>
      ) : (
        <>
          <p>{t("secret.once")}</p>
          <p>
            <code class="secret">{secret}</code> <Copy text={secret} label={t("copy")} />
          </p>
        </>
      )}
      <form method="dialog" class="row end">
        <button class="primary">{t("secret.kept")}</button>
      </form>
    </dialog>
  );
}
