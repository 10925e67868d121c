import { useState } from "preact/hooks";
import { get, send } from "../api";
import { deleteSecret, setSecret } from "../calls";
import { moment } from "../format";
import { Calls } from "../parts/Calls";
import { Confirm } from "../parts/Confirm";
import { Problem } from "../parts/Problem";
import { useLoaded } from "../parts/load";
import { t } from "../words";

type Stored = { name: string; owner: string; created_at: string; updated_at: string };

// Keys of trackers and hubs. Nobody can read their values again, not even this page.
export function Secrets() {
  const { data, error, reload } = useLoaded((signal) => get<{ data: Stored[] }>("/secrets", signal), []);
  return (
    <>
      <h1>{t("secrets")}</h1>
      <p class="quiet">{t("secrets.help")}</p>
      <NewSecret stored={reload} />
      {error !== undefined && <Problem error={error} again={reload} />}
      {!data && error === undefined && <p class="quiet">{t("loading")}</p>}
      {data?.data.length === 0 && <p class="quiet">{t("secrets.none")}</p>}
      {data !== undefined && data.data.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={t("secrets")}>
          <table class="plain level">
            <thead>
              <tr>
                <th scope="col">{t("keys.name")}</th>
                <th scope="col">{t("owner")}</th>
                <th scope="col">{t("secrets.changed")}</th>
                <th scope="col">{t("actions")}</th>
              </tr>
            </thead>
            <tbody>
              {data.data.map((secret) => (
                <Row key={secret.name} secret={secret} done={reload} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Row({ secret: { name, owner, updated_at }, done }: { secret: Stored; done: () => void }) {
  const [asks, setAsks] = useState(false);
  const [error, setError] = useState<unknown>();
  return (
    <tr>
      <th scope="row">
        <code>{name}</code>
      </th>
      <td>{owner}</td>
      <td class="number">{moment(updated_at)}</td>
      <td>
        <div class="row">
          <button class="danger" onClick={() => setAsks(true)}>
            {t("delete")}
          </button>
          <Calls of={name} list={[{ title: t("delete"), calls: [deleteSecret(name)] }]} />
        </div>
        {error !== undefined && <Problem error={error} />}
        {asks && (
          <Confirm
            title={`${t("delete")}: ${name}`}
            text={t("secrets.deleteHelp")}
            action={t("delete")}
            confirm={() => void send(deleteSecret(name)).then(done, setError)}
            close={() => setAsks(false)}
          />
        )}
      </td>
    </tr>
  );
}

function NewSecret({ stored }: { stored: () => void }) {
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const [error, setError] = useState<unknown>();

  async function store(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setError(undefined);
    try {
      await send(setSecret(name, value));
      setName("");
      setValue("");
      stored();
    } catch (problem) {
      setError(problem);
    }
  }

  return (
    <form class="panel" onSubmit={store} aria-labelledby="new-secret">
      <h2 id="new-secret">{t("secrets.new")}</h2>
      <label class="stack">
        {t("keys.name")}
        <input required value={name} placeholder="wandb" onInput={(event) => setName(event.currentTarget.value.trim())} />
      </label>
      <label class="stack">
        {t("secrets.value")}
        <input type="password" autocomplete="off" required value={value} onInput={(event) => setValue(event.currentTarget.value)} />
      </label>
      <div class="row">
        <button class="primary">{t("secrets.store")}</button>
        <Calls of={t("secrets.new")} list={[{ title: t("secrets.store"), calls: [setSecret(name || "wandb", "...")] }]} />
      </div>
      {error !== undefined && <Problem error={error} />}
    </form>
  );
}
