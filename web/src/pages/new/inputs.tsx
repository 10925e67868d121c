// The inputs of a field, by its kind. The value is that of the recipe; undefined is the default.
import { useState } from "preact/hooks";
import type { Field } from "../../recipe/schema";
import { meant, shown } from "../../recipe/text";
import { equal } from "../../recipe/values";
import { t } from "../../words";

type Props = {
  id: string;
  field: Field;
  value: unknown;
  set: (value: unknown) => void;
  described: { "aria-describedby": string; "aria-invalid": boolean; required: boolean };
};

// What is typed stays as it is while it means the value: "1.0" does not become "1".
export function TextInput({ id, field, value, set, described }: Props) {
  const [typed, setTyped] = useState(() => shown(field, value));
  const orDefault = (each: unknown) => (each === undefined ? field.default : each);
  const text = equal(orDefault(meant(field, typed)), orDefault(value)) ? typed : shown(field, value);
  const words = field.choices.filter((each) => typeof each === "string");
  return (
    <>
      <input
        id={id}
        {...described}
        type="text"
        inputMode={field.kind === "number" && words.length === 0 ? "decimal" : "text"}
        autocomplete="off"
        spellcheck={false}
        list={words.length > 0 ? `${id}-words` : undefined}
        value={text}
        placeholder={shown(field, field.usual)}
        onInput={(event) => {
          setTyped(event.currentTarget.value);
          set(meant(field, event.currentTarget.value));
        }}
      />
      {words.length > 0 && (
        <datalist id={`${id}-words`}>
          {words.map((word) => (
            <option value={word} />
          ))}
        </datalist>
      )}
    </>
  );
}

export function Switch({ id, field, value, set, described: { required: _, ...described } }: Props) {
  return <input id={id} {...described} type="checkbox" checked={(value ?? field.default) === true} onChange={(event) => set(event.currentTarget.checked)} />;
}

export function Choice({ id, field, value, set, described: { required: _, ...described } }: Props) {
  const current = value === undefined ? field.default : value;
  const offered = [...(field.nullable ? [null] : []), ...field.choices];
  const known = offered.some((each) => equal(each, current));
  return (
    <select id={id} {...described} value={JSON.stringify(current)} onChange={(event) => set(JSON.parse(event.currentTarget.value))}>
      {(known || current === undefined ? offered : [current, ...offered]).map((each) => (
        <option value={JSON.stringify(each)}>
          {each === null ? t("noValue") : String(each)}
          {equal(each, field.default) && ` (${t("default")})`}
        </option>
      ))}
    </select>
  );
}

export type PickOption = { value: string; label: string };

const ELSEWHERE = " ";

// One of those that the service lists, or another that the reader types.
export function Pick({ options, ...props }: Props & { options: PickOption[] }) {
  const { id, value, set, described } = props;
  const listed = value === undefined || options.some((option) => option.value === value);
  const [typing, setTyping] = useState(false);
  const other = typing || !listed;
  return (
    <>
      <select
        id={id}
        {...described}
        value={other ? ELSEWHERE : String(value ?? "")}
        onChange={(event) => {
          const chosen = event.currentTarget.value;
          setTyping(chosen === ELSEWHERE);
          if (chosen !== ELSEWHERE) set(chosen || undefined);
        }}
      >
        <option value="">{t("choose")}</option>
        {options.map((option) => (
          <option value={option.value}>{option.label}</option>
        ))}
        <option value={ELSEWHERE}>{t("elsewhere")}</option>
      </select>
      {other && (
        <div class="elsewhere">
          <input
            type="text"
            aria-label={t("elsewhere")}
            autocomplete="off"
            spellcheck={false}
            value={value === undefined ? "" : shown(props.field, value)}
            onInput={(event) => {
              setTyping(true);
              set(event.currentTarget.value || undefined);
            }}
          />
        </div>
      )}
    </>
  );
}
