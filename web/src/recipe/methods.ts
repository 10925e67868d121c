// The options of each method with their defaults, and the rate that each trains at by default, as contract/method.py has
// them.
import methods from "./methods.json";
import { type Field, LEARNING_RATE } from "./schema";
import { type Recipe, read, write } from "./values";

const METHODS: Record<string, { learning_rate: number; options: Record<string, unknown> }> = methods;
const OPTIONS = [...new Set(Object.values(METHODS).flatMap(({ options }) => Object.keys(options)))];

const typeOf = (recipe: Recipe): string => String(read(recipe, "method.type") ?? "sft");
const optionsOf = (type: string): Record<string, unknown> => METHODS[type]?.options ?? {};

// The recipe with another method, without the options that this one lacks. Defaults of the one before go too: a beta of
// 0.1 is usual for dpo, and far too low for simpo.
export function withMethod(recipe: Recipe, type: string): Recipe {
  const before = typeOf(recipe);
  if (type === before) return recipe;
  const goes = (name: string) => !(name in optionsOf(type)) || read(recipe, `method.${name}`) === optionsOf(before)[name];
  const left = OPTIONS.filter((name) => read(recipe, `method.${name}`) !== undefined && goes(name));
  return left.reduce((changed, name) => write(changed, `method.${name}`, undefined), write(recipe, "method.type", type));
}

// The field with what its method makes of it if it is empty.
export function asUsual(field: Field, recipe: Recipe): Field {
  const type = typeOf(recipe);
  if (field.path === LEARNING_RATE) return { ...field, usual: METHODS[type]?.learning_rate ?? field.usual };
  const [section, name] = field.path.split(".");
  return section === "method" && name && OPTIONS.includes(name) ? { ...field, usual: optionsOf(type)[name] } : field;
}
