import { ApiError } from "../api";
import { t } from "../words";

export function Problem({ error, again }: { error: unknown; again?: () => void }) {
  const message = error instanceof ApiError && error.code === "unreachable" ? t("offline") : String((error as Error).message);
  return (
    <p role="alert" class="problem">
      {message} {again && <button onClick={again}>{t("retry")}</button>}
    </p>
  );
}
