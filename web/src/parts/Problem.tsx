import { ApiError } from "../api";
import { t } from "../words";

export function Problem({ error, again }: { error: unknown; again?: () => void }) {
  const isOffline = error instanceof ApiError && error.code === "unreachable";
  return (
    <p role="alert" class="problem">
      {/* The API speaks English alone. */}
      <span lang={error instanceof ApiError && !isOffline ? "en" : undefined}>{isOffline ? t("offline") : String((error as Error).message)}</span> {again && <button onClick={again}>{t("retry")}</button>}
    </p>
  );
}
