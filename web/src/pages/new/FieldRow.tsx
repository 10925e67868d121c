import type { Field } from "../../recipe/schema";
import { shown } from "../../recipe/text";
import { t } from "../../words";
import { helpOf } from "../../words/server";
import { Choice, Pick, type PickOption, Switch, TextInput } from "./inputs";

type Props = { field: Field; label: string; value: unknown; error: string | undefined; options?: PickOption[] | undefined; set: (value: unknown) => void };

export function FieldRow({ field, label, value, error, options, set }: Props) {
  const id = `field-${field.path}`;
  const help = helpOf(field.path, field.help);
  const common = {
    id,
    field,
    value,
    set,
    described: { "aria-describedby": `${id}-help ${id}-error`, "aria-invalid": error !== undefined, required: field.required },
  };
  return (
    <div class="field">
      <label for={id}>
        <code>{label}</code>
      </label>
      {options ? <Pick {...common} options={options} /> : <Input {...common} />}
      <p id={`${id}-error`} class="problem" role={error === undefined ? undefined : "alert"} lang="en">
        {error}
      </p>
      <p id={`${id}-help`} class="quiet help">
        <span lang={help.lang}>{help.text}</span> <span class="number">{limits(field)}</span>
      </p>
    </div>
  );
}

function Input(props: Parameters<typeof TextInput>[0]) {
  if (props.field.kind === "switch") return <Switch {...props} />;
  if (props.field.kind === "choice") return <Choice {...props} />;
  return <TextInput {...props} />;
}

function limits(field: Field): string {
  const usual = field.kind === "number" ? shown(field, field.usual) : "";
  return [field.least, field.most, usual && `${t("default")} ${usual}`].filter(Boolean).join(" · ");
}
