import { useEffect, useState } from "preact/hooks";
import { get } from "../../api";
import { integer } from "../../format";
import type { Job, Tracked } from "../../types";
import { t } from "../../words";

const LOOK = 10_000; // ms
const NAMES = { mlflow: "MLflow", wandb: "Weights & Biases" };

// What each tracker has of the job. They follow it some seconds behind, without events of their own.
export function Trackers({ job }: { job: Job }) {
  const [tracking, setTracking] = useState(job.tracking);
  useEffect(() => {
    const abort = new AbortController();
    const look = () => get<Job>(`/jobs/${job.id}`, abort.signal).then((found) => setTracking(found.tracking), () => {});
    if (job.tracking.length > 0) void look();
    const timer = setInterval(() => document.hidden || job.tracking.length === 0 || void look(), LOOK);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [job.id, job.status]);
  return (
    <>
      {tracking.map((each) => (
        <p>
          {each.url ? <a href={each.url}>{NAMES[each.type]}</a> : NAMES[each.type]}: {said(each)}
        </p>
      ))}
    </>
  );
}

function said({ status, behind, error }: Tracked): string {
  if (status === "retrying" || status === "given_up") return `${t(`tracker.${status}`)} ${error}`;
  return status === "following" && behind > 0 ? t("tracker.behind", { n: integer(behind) }) : t(`tracker.${status}`);
}
