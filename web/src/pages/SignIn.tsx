import { useState } from "preact/hooks";
import { ApiError, post } from "../api";
import { Preferences } from "../parts/Preferences";
import { Problem } from "../parts/Problem";
import type { Session } from "../types";
import { t } from "../words";

export function SignIn({ done }: { done: (session: Session) => void }) {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  async function signIn(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    const key = String(new FormData(event.target as HTMLFormElement).get("key"));
    try {
      done(await post<Session>("/session", { key: key.trim() }));
    } catch (problem) {
      setError(problem instanceof ApiError && problem.code === "wrong_key" ? new Error(t("wrongKey")) : problem);
      setBusy(false);
      document.getElementById("key")?.focus();
    }
  }
  return (
    <main id="content" class="sign-in">
      <h1>finetuned</h1>
      <form onSubmit={signIn} class="stack">
        <label for="key">{t("key")}</label>
        <input id="key" name="key" type="password" autocomplete="current-password" required autofocus aria-describedby="key-hint" aria-invalid={error !== undefined} />
        <p id="key-hint" class="quiet">{t("keyHint")}</p>
        {error !== undefined && <Problem error={error} />}
        <button class="primary" disabled={busy}>
          {t("signIn")}
        </button>
      </form>
      <div class="row preferences">
        <Preferences />
      </div>
    </main>
  );
}
