// Uploads an artifact to a model hub, and shows how far that is.
import { useState } from "preact/hooks";
import { get } from "../../api";
import { pushJob } from "../../calls";
import { Calls } from "../../parts/Calls";
import { useLoaded } from "../../parts/load";
import { isOpen, usePolling } from "../../parts/polling";
import { Problem } from "../../parts/Problem";
import { useStart } from "../../parts/starting";
import { Status } from "../../parts/Status";
import { href } from "../../route";
import type { Artifact } from "../../types";
import { t } from "../../words";

type Push = {
  id: string;
  artifact: string;
  repo: string;
  revision: string | null;
  secret: string;
  status: "queued" | "running" | "succeeded" | "failed";
  failures: number;
  error: string | null;
  url: string | null;
};

export function Pushes({ jobId, artifacts }: { jobId: string; artifacts: Artifact[] }) {
  const { data, error, reload } = useLoaded((signal) => get<{ data: Push[] }>(`/jobs/${jobId}/pushes`, signal), [jobId]);
  usePolling(data?.data, reload);
  const names = artifacts.map((each) => each.name).filter((name) => name.endsWith(".tar"));
  if (names.length === 0) return null;
  return (
    <section class="panel" aria-labelledby="pushes">
      <h2 id="pushes">{t("pushes")}</h2>
      <NewPush jobId={jobId} names={names} made={reload} />
      {error !== undefined && <Problem error={error} again={reload} />}
      <ul class="plain">
        {data?.data.map((push) => (
          <Row key={push.id} push={push} />
        ))}
      </ul>
    </section>
  );
}

function NewPush({ jobId, names, made }: { jobId: string; names: readonly string[]; made: () => void }) {
  const secrets = useLoaded((signal) => get<{ data: { name: string }[] }>("/secrets", signal), []);
  const [wanted, setWanted] = useState({ repo: "", revision: "", private: true });
  const [chosen, setChosen] = useState<{ artifact?: string; secret?: string }>({});
  const stored = secrets.data?.data.map((each) => each.name) ?? [];
  const artifact = chosen.artifact ?? (names.includes("adapter.tar") ? "adapter.tar" : names[0]!);
  const secret = chosen.secret ?? (stored.includes("hub") ? "hub" : stored[0]);
  const call = pushJob(jobId, { repo: wanted.repo || "org/name", secret: secret ?? "hub", artifact, private: wanted.private, revision: wanted.revision || null });
  const { start, problem } = useStart(call, made);

  return (
    <form class="row fields" onSubmit={start}>
      <label>
        {t("pushes.artifact")}
        <select value={artifact} onChange={(event) => setChosen({ ...chosen, artifact: event.currentTarget.value })}>
          {names.map((each) => (
            <option value={each}>{each}</option>
          ))}
        </select>
      </label>
      <label>
        {t("pushes.repo")}
        <input
          placeholder="org/name"
          required
          autocomplete="off"
          spellcheck={false}
          value={wanted.repo}
          onInput={(event) => setWanted({ ...wanted, repo: event.currentTarget.value })}
        />
      </label>
      <label>
        {t("pushes.branch")}
        <input
          placeholder="main"
          autocomplete="off"
          spellcheck={false}
          value={wanted.revision}
          onInput={(event) => setWanted({ ...wanted, revision: event.currentTarget.value })}
        />
      </label>
      {stored.length > 0 && (
        <label>
          {t("pushes.secret")}
          <select value={secret} onChange={(event) => setChosen({ ...chosen, secret: event.currentTarget.value })}>
            {stored.map((each) => (
              <option value={each}>{each}</option>
            ))}
          </select>
        </label>
      )}
      <label class="check">
        <input type="checkbox" checked={wanted.private} onChange={(event) => setWanted({ ...wanted, private: event.currentTarget.checked })} />
        {t("pushes.private")}
      </label>
      <button disabled={stored.length === 0}>{t("pushes.start")}</button>
      <Calls list={[{ title: t("pushes.start"), calls: [call] }]} of={t("pushes")} />
      {secrets.data && stored.length === 0 && (
        <span class="quiet">
          {t("pushes.noSecret")} <a href={href(["secrets"])}>{t("secrets")}</a>
        </span>
      )}
      {secrets.error !== undefined && <Problem error={secrets.error} again={secrets.reload} />}
      {problem !== undefined && <Problem error={problem} />}
    </form>
  );
}

function Row({ push }: { push: Push }) {
  const { status, artifact, repo, revision, secret, failures, error, url } = push;
  const place = revision === null ? repo : `${repo}@${revision}`;
  return (
    <li>
      <Status status={status} /> {artifact} →{" "}
      {url === null ? (
        place
      ) : (
        <a href={url} rel="noreferrer">
          {place}
        </a>
      )}{" "}
      · {t("pushes.with", { secret })}
      {isOpen(push) && failures > 0 && ` · ${t("pushes.triedAgain", { n: failures })}`}
      {error !== null && <span lang="en"> · {error}</span>}
    </li>
  );
}
