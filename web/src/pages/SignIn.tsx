import { useState } from "preact/hooks";
import { post } from "../api";
import { Problem } from "../parts/Problem";
import type { Session } from "../types";
import { t } from "../words";

export function SignIn({ done }: { done: (session: Session) => void }) {
  const [error, setError] = useState<unknown>();
  async function signIn(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const key = String(new FormData(event.target as HTMLFormElement).get("key"));
    try {
      done(await post<Session>("/session", { key: key.trim() }));
    } catch (problem) {
      setError(problem);
    }
  }
  return (
    <main id="content" class="sign-in">
      <h1>finetuned</h1>
      <form onSubmit={signIn} class="stack">
        <label for="key">{t("key")}</label>
        <input id="key" name="key" type="password" autocomplete="current-password" required autofocus />
        <p class="quiet">{t("keyHint")}</p>
        {error !== undefined && <Problem error={error} />}
        <button class="primary">{t("signIn")}</button>
      </form>
    </main>
  );
}
