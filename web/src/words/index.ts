import { language } from "../settings";
import { en } from "./en";
import { zh } from "./zh";

export type Word = keyof typeof en;

export function t(word: Word, values: Readonly<Record<string, string | number>> = {}): string {
  const text = (language.value === "zh" ? zh : en)[word];
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}

export const isWord = (text: string): text is Word => Object.hasOwn(en, text);
