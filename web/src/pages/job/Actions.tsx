import { useState } from "preact/hooks";
import { cloneJob, showJob } from "../../calls";
import { Calls } from "../../parts/Calls";
import { Confirm } from "../../parts/Confirm";
import { Problem } from "../../parts/Problem";
import { go } from "../../route";
import type { Job } from "../../types";
import { t } from "../../words";
import { ACTION_WORDS, type Action, act, callOf, possible } from "../actions";

const DESTRUCTIVE: Partial<Record<Action, "confirm.cancel" | "confirm.delete">> = {
  cancel: "confirm.cancel",
  delete: "confirm.delete",
};

export function Actions({ job, done }: { job: Job; done: () => void }) {
  const [confirming, setConfirming] = useState<Action>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  async function run(action: Action): Promise<void> {
    setBusy(true);
    setError(undefined);
    try {
      await act(action, job.id);
      if (action === "delete") go(["jobs"]);
      else done();
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  return (
    <div class="row actions" role="toolbar" aria-label={t("actions")}>
      {possible(job.status).map((action) => (
        <button
          disabled={busy || job.requested_action !== null}
          class={action in DESTRUCTIVE ? "danger" : ""}
          onClick={() => (action in DESTRUCTIVE ? setConfirming(action) : run(action))}
        >
          {t(ACTION_WORDS[action])}
        </button>
      ))}
      <button onClick={() => go(["new"], { from: job.id })}>{t("clone")}</button>
      <button onClick={() => go(["chat"], { job: job.id })}>{t("chat")}</button>
      <Calls
        list={[
          ...possible(job.status).map((action) => ({ title: t(ACTION_WORDS[action]), calls: [callOf(action, job.id)] })),
          { title: t("clone"), calls: [cloneJob(job.id, job.recipe)] },
          { title: t("watch"), calls: [showJob(job.id)] },
        ]}
      />
      {error !== undefined && <Problem error={error} />}
      {confirming && (
        <Confirm
          title={`${t(ACTION_WORDS[confirming])}: ${job.name ?? job.id}`}
          text={t(DESTRUCTIVE[confirming]!)}
          action={t(ACTION_WORDS[confirming])}
          confirm={() => run(confirming)}
          close={() => setConfirming(undefined)}
        />
      )}
    </div>
  );
}
