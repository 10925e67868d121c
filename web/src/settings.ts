// What this reader prefers, on this browser.
import { effect, signal } from "@preact/signals";

export type Language = "en" | "zh";
export type Theme = "system" | "light" | "dark";

export const language = signal<Language>(
  stored("language", ["en", "zh"]) ?? (navigator.language.startsWith("zh") ? "zh" : "en"),
);
export const theme = signal<Theme>(stored("theme", ["system", "light", "dark"]) ?? "system");

effect(() => {
  localStorage.setItem("language", language.value);
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});

effect(() => {
  localStorage.setItem("theme", theme.value);
  document.documentElement.dataset.theme = theme.value;
});

function stored<T extends string>(name: string, allowed: readonly T[]): T | undefined {
  return allowed.find((each) => each === localStorage.getItem(name));
}
