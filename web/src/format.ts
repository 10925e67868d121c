// Numbers and times as the reader's language writes them.
import { language } from "./settings";
import { t } from "./words";

// Of the kinds of a language, the one that the browser prefers: en-GB writes times otherwise than en-US.
const locale = (): string => navigator.languages.find((each) => each.startsWith(language.value)) ?? language.value;

// As many digits whatever the number is, so that a live one does not jump.
export const loss = (value: number | null | undefined): string => (value == null ? "–" : value.toFixed(4));

export function compact(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 0.001 || size >= 1e15) return value.toExponential(1);
  return new Intl.NumberFormat(locale(), { maximumSignificantDigits: 4, notation: size >= 1e5 ? "compact" : "standard" }).format(value);
}

export const integer = (value: number): string => new Intl.NumberFormat(locale()).format(value);

export const percent = (value: number): string => `${Math.floor(value * 100)}%`;

// Files are counted in thousands and memory in 1024s, as the API's messages do.
export const bytes = (value: number): string => sized(value, 1000, ["B", "kB", "MB", "GB", "TB"]);

export const memory = (value: number): string => sized(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);

function sized(value: number, base: number, units: string[]): string {
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log(value) / Math.log(base)));
  const shown = value / base ** power;
  return `${power && shown < 100 ? shown.toFixed(1) : Math.round(shown)} ${units[power]}`;
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  const two = (n: number): string => String(n).padStart(2, "0");
  if (days) return `${t("unit.days", { n: days })} ${t("unit.hours", { n: hours })}`;
  if (hours) return `${t("unit.hours", { n: hours })} ${t("unit.minutes", { n: two(minutes) })}`;
  if (minutes) return `${t("unit.minutes", { n: minutes })} ${t("unit.seconds", { n: two(whole % 60) })}`;
  return t("unit.seconds", { n: whole });
}

export const moment = (iso: string | number): string =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "short", timeStyle: "medium" }).format(new Date(iso));

// The marks of a time axis, in seconds: the day where it begins, and seconds only where the marks are close.
export function timeMarks(seconds: readonly number[], distance: number): string[] {
  const day = new Intl.DateTimeFormat(locale(), { dateStyle: "short" });
  const time = new Intl.DateTimeFormat(locale(), { timeStyle: distance < 60 ? "medium" : "short" });
  const days = seconds.map((each) => day.format(each * 1000));
  return seconds.map((each, index) => (days[index] === days[index - 1] ? time.format(each * 1000) : `${time.format(each * 1000)}\n${days[index]}`));
}
