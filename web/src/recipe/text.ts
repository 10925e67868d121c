// What a field shows for a value, and the value that a typed text means. A text that means none stays a text: the API
// refuses it, and says at the field what to write instead.
import type { Field } from "./schema";

export function shown(field: Field, value: unknown): string {
  if (value === undefined || (value === null && field.default === null)) return "";
  if (field.kind === "list" && Array.isArray(value)) return value.every(isPlain) ? value.join(", ") : JSON.stringify(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

// Undefined for an empty text: the default.
export function meant(field: Field, text: string): unknown {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  if (trimmed === "null" && field.nullable && field.kind !== "text") return null;
  switch (field.kind) {
    case "number":
      return numberOr(trimmed);
    case "list":
      return listOr(trimmed) ?? trimmed.split(",").map((each) => each.trim()).filter(Boolean);
    case "json":
      return parsed(trimmed) ?? text;
    default:
      return listOr(trimmed) ?? text;
  }
}

const isPlain = (value: unknown): boolean => typeof value === "string" && value !== "" && value.trim() === value && !/[,[]/.test(value);

function numberOr(text: string): number | string {
  const number = Number(text);
  return Number.isFinite(number) ? number : text;
}

function listOr(text: string): unknown[] | undefined {
  const value = text.startsWith("[") ? parsed(text) : undefined;
  return Array.isArray(value) ? value : undefined;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
