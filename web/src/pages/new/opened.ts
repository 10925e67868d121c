// Which sections of the form are unfolded; it outlives a reload of this tab.
import { effect, signal } from "@preact/signals";

const NAME = "newJob.opened";

export const opened = signal<readonly string[]>(JSON.parse(sessionStorage.getItem(NAME) ?? "[]"));
effect(() => sessionStorage.setItem(NAME, JSON.stringify(opened.value)));

export function setOpened(name: string, open: boolean): void {
  if (open === opened.value.includes(name)) return;
  opened.value = open ? [...opened.value, name] : opened.value.filter((each) => each !== name);
}
