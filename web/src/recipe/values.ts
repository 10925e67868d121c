// Reads and writes a recipe by dotted paths, and leaves out what says nothing.
import { type Form, LEARNING_RATE } from "./schema";

export type Recipe = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Recipe => typeof value === "object" && value !== null && !Array.isArray(value);

// A dataset may be written as its path alone, and a method as its type.
const wholeName = (section: string): string => (section === "method" ? "type" : "path");
const spelledOut = (section: string, value: unknown): unknown =>
  typeof value === "string" ? { [wholeName(section)]: value } : value;

export function read(recipe: Recipe, path: string): unknown {
  return path.split(".").reduce<unknown>((value, name, index, names) => {
    const object = spelledOut(names[index - 1] ?? "", value);
    return isObject(object) && Object.hasOwn(object, name) ? object[name] : undefined;
  }, recipe);
}

// The recipe with that value, or without one if it is undefined.
export function write(recipe: Recipe, path: string, value: unknown): Recipe {
  const [name, ...rest] = path.split(".") as [string, ...string[]];
  const inner = spelledOut(name, recipe[name]);
  const next = rest.length === 0 ? value : write(isObject(inner) ? inner : {}, rest.join("."), value);
  if (next !== undefined) return { ...recipe, [name]: next };
  const { [name]: _, ...others } = recipe;
  return others;
}

export function merge(recipe: Recipe, changes: Recipe): Recipe {
  return Object.entries(changes).reduce<Recipe>((merged, [name, value]) => {
    const before = merged[name];
    return { ...merged, [name]: isObject(value) && isObject(before) ? merge(before, value) : value };
  }, recipe);
}

// The recipe without the fields that have their defaults. Fields that the schema does not know stay, for the API to
// refuse by name.
export function compact(recipe: Recipe, { sections, groups }: Form): Recipe {
  let left = recipe;
  // A section that is left out may mean more than the defaults of its fields: epochs are 3 then, and null otherwise.
  for (const group of groups) {
    if (group.default !== undefined && equal(read(left, group.path), group.default)) left = write(left, group.path, undefined);
  }
  for (const field of sections.flatMap((section) => section.fields)) {
    const value = read(left, field.path);
    if (value !== undefined && equal(value, field.default)) left = write(left, field.path, undefined);
  }
  for (const group of groups.toReversed()) {
    const value = read(left, group.path);
    if (!isObject(value)) continue;
    const names = Object.keys(value);
    if (names.length === 0) left = write(left, group.path, undefined);
    else if (group.short && names.length === 1 && typeof value[wholeName(group.path)] === "string") {
      left = write(left, group.path, value[wholeName(group.path)]);
    }
  }
  return left;
}

// What a copy of a job starts from, without what the API fills in when it accepts a job: two fields for a file as it was
// then, and the learning rate of "sft", which would be far too high for another method that is chosen later.
export function forCopy(recipe: Recipe, form: Form): Recipe {
  const sources = form.groups.filter((group) => group.short && isObject(read(recipe, group.path)));
  const filledIn = sources.flatMap(({ path }) => [`${path}.sha256`, `${path}.filename`]);
  if (hasUsualRate(recipe, form)) filledIn.push(LEARNING_RATE);
  return compact(
    filledIn.reduce((left, path) => write(left, path, undefined), recipe),
    form,
  );
}

function hasUsualRate(recipe: Recipe, { sections }: Form): boolean {
  const field = sections.flatMap((section) => section.fields).find(({ path }) => path === LEARNING_RATE);
  return (read(recipe, "method.type") ?? "sft") === "sft" && read(recipe, LEARNING_RATE) === field?.usual;
}

export function equal(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((each, index) => equal(each, b[index]));
  if (!isObject(a) || !isObject(b)) return a === b;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => name in b && equal(a[name], b[name]));
}
