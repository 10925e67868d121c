// Where the reader is, in the part of the address after "#": a reload, a bookmark and a link that is passed on show the
// same. The part before it belongs to the API.
import { signal } from "@preact/signals";

export type Route = { path: string[]; query: URLSearchParams };

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export const route = signal<Route>(read());

addEventListener("hashchange", () => {
  route.value = read();
});

export function href(path: readonly string[], query: Readonly<Record<string, string>> = {}): string {
  const parameters = new URLSearchParams(query).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${parameters && `?${parameters}`}`;
}

export function go(path: readonly string[], query: Readonly<Record<string, string>> = {}): void {
  location.hash = href(path, query);
}

// Without an entry in the history: "back" leaves the page, and does not undo each letter of a search.
export function setQuery(name: string, value: string): void {
  const query = new URLSearchParams(route.value.query);
  if (value) query.set(name, value);
  else query.delete(name);
  const { path } = route.value;
  history.replaceState(null, "", href(path, Object.fromEntries(query)));
  route.value = { path, query };
}
