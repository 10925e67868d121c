// The fields of a form, from the JSON Schema of a recipe.
export type Schema = {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string;
  anyOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
};

export type Kind = "switch" | "choice" | "number" | "list" | "json" | "text";

export type Field = {
  path: string;
  kind: Kind;
  help: string;
  required: boolean;
  nullable: boolean;
  // Undefined where there is none.
  default: unknown;
  // What an empty field shows: the value that its section has if the recipe leaves the whole section out.
  usual: unknown;
  // All that a "choice" takes; for the other kinds, words that are accepted besides.
  choices: unknown[];
  least: string;
  most: string;
};

// A part of the recipe that is an object. `short`: it may be written as its `path` alone.
export type Group = { path: string; default: unknown; short: boolean };
export type Section = { name: string; help: string; fields: Field[] };
export type Form = { sections: Section[]; groups: Group[] };

const GENERAL = "general";
// Its default depends on the method, so that the form takes it for one without a default: a rate that is written stays.
export const LEARNING_RATE = "optimizer.learning_rate";

export function formOf(root: Schema): Form {
  const general: Section = { name: GENERAL, help: "", fields: [] };
  const form: Form = { sections: [general], groups: [] };
  for (const [name, schema] of Object.entries(root.properties ?? {})) {
    const fields = walk(root, schema, name, (root.required ?? []).includes(name), undefined, form.groups);
    const object = objectOf(root, schema);
    if (object) form.sections.push({ name, help: object.description ?? schema.description ?? "", fields });
    else general.fields.push(...fields);
  }
  return form;
}

function walk(root: Schema, schema: Schema, path: string, required: boolean, usual: unknown, groups: Group[]): Field[] {
  const object = objectOf(root, schema);
  if (!object) return [fieldOf(schema, path, required, usual)];
  groups.push({ path, default: defaultOf(schema, path), short: branches(schema).some((branch) => branch.type === "string") });
  return Object.entries(object.properties!).flatMap(([name, inner]) => {
    const usualOf = (schema.default as Record<string, unknown> | null | undefined)?.[name];
    return walk(root, inner, `${path}.${name}`, required && (object.required ?? []).includes(name), usualOf, groups);
  });
}

function objectOf(root: Schema, schema: Schema): Schema | undefined {
  const found = [schema, ...branches(schema)].map((each) => (each.$ref ? root.$defs?.[each.$ref.split("/").at(-1)!] : each));
  return found.find((each) => each?.properties !== undefined);
}

const defaultOf = (schema: Schema, path: string): unknown => (`${LEARNING_RATE}.`.startsWith(`${path}.`) ? undefined : schema.default);

const branches = (schema: Schema): Schema[] => schema.anyOf ?? [schema];

function fieldOf(schema: Schema, path: string, required: boolean, usual: unknown): Field {
  const parts = branches(schema);
  const number = parts.find((part) => (part.type === "number" || part.type === "integer") && !part.enum);
  return {
    path,
    kind: kindOf(parts),
    help: (schema.description ?? "").replaceAll("\n", " "),
    required,
    nullable: parts.some((part) => part.type === "null"),
    default: defaultOf(schema, path),
    usual: usual ?? schema.default,
    choices: parts.flatMap((part) => part.enum ?? (part.const === undefined ? [] : [part.const])),
    least: bound(number?.minimum, "≥", number?.exclusiveMinimum, ">"),
    most: bound(number?.maximum, "≤", number?.exclusiveMaximum, "<"),
  };
}

function kindOf(parts: Schema[]): Kind {
  const open = parts.filter((part) => part.type !== "null" && !part.enum && part.const === undefined);
  if (open.length === 0) return "choice";
  const types = new Set(open.map((part) => part.type));
  if (types.has("boolean")) return "switch";
  if (types.has("number") || types.has("integer")) return "number";
  if (types.has("object")) return "json";
  return types.has("string") ? "text" : "list";
}

const LARGEST = 2 ** 31 - 1;

function bound(inclusive: number | undefined, sign: string, exclusive: number | undefined, strict: string): string {
  // The largest number of the database's type is no limit that a reader meets.
  if (inclusive === LARGEST) return "";
  if (inclusive !== undefined) return `${sign} ${inclusive}`;
  return exclusive === undefined ? "" : `${strict} ${exclusive}`;
}

const EVERYDAY = [
  "model",
  "dataset.path",
  "name",
  "schedule.epochs",
  LEARNING_RATE,
  "adapter.r",
  "batch.micro_batch_size",
  "batch.effective_batch_size",
  "batch.max_length",
];

// The few fields that most recipes set, and the others in their sections.
export function divided({ sections }: Form): { everyday: Field[]; rest: Section[] } {
  const all = sections.flatMap((section) => section.fields);
  const everyday = EVERYDAY.flatMap((path) => all.find((field) => field.path === path) ?? []);
  const rest = sections.map((section) => ({ ...section, fields: section.fields.filter((field) => !everyday.includes(field)) }));
  return { everyday, rest: rest.filter((section) => section.fields.length > 0) };
}

// The field that an error of the API is about.
export function fieldAt({ sections }: Form, param: string): Field | undefined {
  const all = sections.flatMap((section) => section.fields);
  return all.find((field) => field.path === param || field.path === `${param}.path`);
}
