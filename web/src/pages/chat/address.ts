// What the address says of models and settings is kept with the conversation: a link to its job alone finds it again.
import { route, setQuery } from "../../route";
import { conversation, update } from "./conversation";
import { FIELDS, type Sampling } from "./sampling";

const NAMES = ["with", "system", "example", ...Object.keys(FIELDS)];

export function setAddress(name: string, value: string): void {
  const { [name]: _, ...others } = conversation.value.address;
  update({ address: value ? { ...others, [name]: value } : others });
  setQuery(name, value);
}

export const writeSetting = (name: keyof Sampling, value: number): void => setAddress(name, value === FIELDS[name].usual ? "" : String(value));

// What the address names comes first.
export function restoreAddress(): void {
  for (const name of NAMES) {
    const [given, kept] = [route.value.query.get(name), conversation.value.address[name]];
    if (given) {
      if (given !== kept) update({ address: { ...conversation.value.address, [name]: given } });
    } else if (kept) setQuery(name, kept);
  }
}
