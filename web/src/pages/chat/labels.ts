import { t } from "../../words";
import type { Choice } from "./models";

export function labelOf({ key, step, name }: Choice): string {
  if (key === "base") return t("chat.base", { name: name! });
  if (key === "model") return t("chat.trained");
  return step === null ? t("chat.otherJob", { name: name! }) : t("chat.step", { n: step });
}
