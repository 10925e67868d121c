// A recipe as a list of its fields, to show and to compare.
export function flat(value: unknown, path = ""): Record<string, string> {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return { [path]: JSON.stringify(value) };
  const parts = Object.entries(value).map(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
  return Object.assign({}, ...parts) as Record<string, string>;
}

export function differing(recipes: readonly Record<string, string>[]): string[] {
  const fields = [...new Set(recipes.flatMap((recipe) => Object.keys(recipe)))];
  return fields.filter((field) => new Set(recipes.map((recipe) => recipe[field])).size > 1);
}
