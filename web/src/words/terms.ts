// Words of the contract that the page shows as they are in English: types of events, their fields, kinds of artifacts.
import { language } from "../settings";
import { isWord, t } from "./index";
import terms from "./terms.zh.json";

type Table = Readonly<Record<string, string>>;

const inChinese = (table: Table, name: string): string => (language.value === "zh" && table[name]) || name.replaceAll("_", " ");

export const eventOf = (type: string): string => inChinese(terms.events, type);
export const fieldOf = (name: string): string => inChinese(terms.fields, name);
export const kindOf = (kind: string): string => inChinese(terms.kinds, kind);

// What a field of an event says, where that is one of the contract's words.
export function valueOf(type: string, name: string, value: string): string {
  if (type === "phase" && name === "name") return inChinese(terms.phases, value);
  const word = `status.${value}`;
  return name === "status" && isWord(word) ? t(word) : value;
}
