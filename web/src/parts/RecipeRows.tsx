// The values of some fields, a column for each recipe.
type Props = { fields: readonly string[]; recipes: readonly Readonly<Record<string, string>>[] };

export function RecipeRows({ fields, recipes }: Props) {
  return (
    <>
      {fields.map((field) => (
        <tr>
          <th scope="row">{field}</th>
          {recipes.map((recipe) => (
            <td>
              <code>{recipe[field] ?? "–"}</code>
            </td>
          ))}
        </tr>
      ))}
    </>
  );
}
