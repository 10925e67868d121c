// Whether a key belongs to an input method, which writes Chinese for one. Safari ends the composition before the key
// that ended it, and says so by the code 229 alone.
export const isComposing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;
