// A job's log as lines: what its trainer and its worker say while it runs, or a log file of an attempt that has ended.
import { getText } from "../../api";
import type { JobEvent } from "../../types";
import { describe } from "./Events";

// A longer log is cut at its beginning; its download is whole.
export const MOST_LINES = 5000;
export const MOST_BYTES = 500_000;

// Local, and as wide in each line.
const TIME = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

// Everything but steps, which are curves, and samples, which have a page of their own.
export function linesOf(events: readonly JobEvent[]): string[] {
  const shown = events.filter(({ type }) => type !== "sample" && type !== "queue");
  return shown.slice(-MOST_LINES).map(({ type, time, data }) => {
    const level = type === "log" ? String(data.level).toUpperCase() : type;
    return `${TIME.format(time * 1000)}  ${level.padEnd(10)}  ${type === "log" ? String(data.message) : describe({ type, data })}`;
  });
}

// The end of a log file.
export async function readLogFile(path: string, bytes: number, signal: AbortSignal): Promise<string[]> {
  const from = Math.max(0, bytes - MOST_BYTES);
  const lines = (await getText(path, signal, from ? { range: `bytes=${from}-` } : {})).split(/\r?\n/);
  if (from) lines.shift();
  if (lines.at(-1) === "") lines.pop();
  return lines.slice(-MOST_LINES);
}

export function containing(lines: readonly string[], text: string): readonly string[] {
  const wanted = text.toLowerCase();
  return wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)) : lines;
}
