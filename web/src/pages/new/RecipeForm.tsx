import type { ComponentChildren } from "preact";
import { asUsual } from "../../recipe/methods";
import { type Field, type Form, type Section, divided } from "../../recipe/schema";
import { type Recipe, read } from "../../recipe/values";
import { isWord, t } from "../../words";
import { helpOf } from "../../words/server";
import { FieldRow } from "./FieldRow";
import type { PickOption } from "./inputs";
import { opened, setOpened } from "./opened";

type Props = {
  form: Form;
  recipe: Recipe;
  broken: boolean;
  fault: { path: string; message: string } | undefined;
  options: Record<string, PickOption[]>;
  set: (path: string, value: unknown) => void;
  children: ComponentChildren;
};

// The everyday fields, then `children`, then the folded sections. Nothing can be typed while the JSON is broken.
export function RecipeForm({ form, recipe, broken, fault, options, set, children }: Props) {
  const { everyday, rest } = divided(form);
  const row = (field: Field, label: string) => (
    <FieldRow
      key={field.path}
      field={asUsual(field, recipe)}
      label={label}
      value={read(recipe, field.path)}
      error={fault?.path === field.path ? fault.message : undefined}
      options={options[field.path]}
      set={(value) => set(field.path, value)}
    />
  );
  const isSet = (field: Field) => read(recipe, field.path) !== undefined;
  return (
    <fieldset class="recipe" disabled={broken} aria-label={t("form")}>
      <div class="fields">{everyday.map((field) => row(field, field.path.replace(/\.path$/, "")))}</div>
      {children}
      {rest.map((section) => (
        <Folded section={section} set={section.fields.filter(isSet).length} faulty={section.fields.some((field) => field.path === fault?.path)}>
          {section.fields.map((field) => row(field, field.path.replace(`${section.name}.`, "")))}
        </Folded>
      ))}
    </fieldset>
  );
}

type FoldedProps = { section: Section; set: number; faulty: boolean; children: ComponentChildren };

function Folded({ section, set, faulty, children }: FoldedProps) {
  const { name } = section;
  const word = `section.${name}`;
  const help = helpOf(name, section.help);
  return (
    <details open={faulty || opened.value.includes(name)} onToggle={(event) => setOpened(name, event.currentTarget.open)}>
      <summary>
        {isWord(word) ? t(word) : name} {set > 0 && <span class="pill">{t("setFields", { n: set })}</span>}
      </summary>
      {help.text && (
        <p class="quiet help" lang={help.lang}>
          {help.text}
        </p>
      )}
      <div class="fields">{children}</div>
    </details>
  );
}
