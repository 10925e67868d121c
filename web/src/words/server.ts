// What the API says in English, in the reader's language: by the code or the field that it is about.
import { bytes } from "../format";
import { language } from "../settings";
import type { Queue } from "../types";
import english from "./failures.en.json";
import chinese from "./failures.zh.json";
import help from "./help.zh.json";
import reasons from "./reasons.zh.json";

type Table<T> = Readonly<Record<string, T>>;
type Explained = { what: string; do: string };
type State = { machine: string; free: number; usable: number; busy: number };
type Need = { count: number; unit: string };

const MOST_NAMED = 3;

export function explained(code: string): Explained | undefined {
  return ((language.value === "zh" ? chinese : english) as Table<Explained>)[code];
}

// Both datasets of a recipe have the same fields.
export function helpOf(path: string, text: string): { text: string; lang: string | undefined } {
  const found = language.value === "zh" && (help as Table<string>)[path.replace(/^evaluation\.(?=dataset\.)/, "")];
  return found ? { text: found, lang: undefined } : { text, lang: "en" };
}

export function reasonOf({ code, reason, values }: Queue): string {
  const sentence = language.value === "zh" && (reasons as Table<string>)[code];
  return sentence ? sentence.replace(/\{(\w+)\}/g, (_, name: string) => inChinese(name, values)) : reason;
}

function inChinese(name: string, values: Queue["values"]): string {
  const value = values[name];
  if (name === "bytes") return bytes(Number(value));
  if (name === "needs") return (value as Need[]).map(need).join("或 ");
  if (name === "states") return (value as State[]).map(state).join("，") + (values.more ? `，另有 ${String(values.more)} 台` : "");
  if (Array.isArray(value)) return listed(value as (string | null)[]);
  return value === null ? "另一个所有者的任务" : String(value);
}

const UNITS: Record<string, (count: number) => string> = {
  GPU: (count) => `${count} 块 GPU`,
  "CPU slot": (count) => `${count} 个 CPU 槽位`,
  "queue place": (count) => `${count} 个集群队列名额`,
};
const need = ({ count, unit }: Need): string => UNITS[unit]?.(count) ?? `${count} ${unit}`;

const state = ({ machine, free, usable, busy }: State): string => `${machine} 共 ${usable}，空闲 ${free}${busy ? `，被占用或不可用 ${busy}` : ""}`;

function listed(names: readonly (string | null)[]): string {
  const shown = names.slice(0, MOST_NAMED).map((each) => each ?? "另一个所有者的任务");
  return shown.join("、") + (names.length > MOST_NAMED ? ` 等 ${names.length} 个` : "");
}
