import { type Language, type Theme, language, theme } from "../settings";
import { t } from "../words";

export function Preferences() {
  return (
    <>
      <select aria-label={t("language")} value={language.value} onChange={(event) => (language.value = event.currentTarget.value as Language)}>
        <option value="en" lang="en">
          English
        </option>
        <option value="zh" lang="zh-CN">
          中文
        </option>
      </select>
      <select aria-label={t("theme")} value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
        {(["system", "light", "dark"] as const).map((each) => (
          <option value={each}>{t(`theme.${each}`)}</option>
        ))}
      </select>
    </>
  );
}
