import { type Recipe, read } from "../../recipe/values";
import { DatasetReport } from "./DatasetReport";
import { Upload } from "./Upload";

const ID = /^file-[0-9a-f]+$/;

type Props = { recipe: Recipe; choose: (id: string | undefined) => void; uploaded: () => void };

// Uploads a dataset, and shows what is in the one that the recipe names.
export function DatasetPanel({ recipe, choose, uploaded }: Props) {
  const id = read(recipe, "dataset.path");
  const [model, template, maxLength] = ["model", "dataset.chat_template", "batch.max_length"].map((path) => read(recipe, path));
  // A method may be written as its name alone.
  const method = typeof recipe.method === "string" ? recipe.method : read(recipe, "method.type");
  return (
    <section class="dataset">
      <Upload
        done={(dataset) => {
          uploaded();
          choose(dataset.id);
        }}
      />
      {typeof id === "string" && ID.test(id) && (
        <DatasetReport
          key={id}
          id={id}
          deleted={() => {
            uploaded();
            choose(undefined);
          }}
          query={{
            ...(typeof model === "string" && { model }),
            ...(typeof template === "string" && { chat_template: template }),
            ...(typeof maxLength === "number" && { max_length: String(maxLength) }),
            ...(typeof method === "string" && { method }),
          }}
        />
      )}
    </section>
  );
}
