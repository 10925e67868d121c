import type { Job } from "../../types";
import { t } from "../../words";
import { explained } from "../../words/server";

// What happened, in the reader's language and in the service's own words, and what to do.
export function Failure({ failure }: { failure: NonNullable<Job["failure"]> }) {
  const words = explained(failure.code);
  return (
    <section class="failure" aria-label={t("failure")}>
      <h2 class="problem">{words?.what ?? t("failure")}</h2>
      <p lang="en">
        <code>{failure.code}</code> {failure.message}
      </p>
      {words && <p>{words.do}</p>}
      <p class="quiet">
        {t(failure.retryable ? "failure.retryable" : "failure.final")} {t("failure.docs")} <code>docs/jobs.md</code>
      </p>
      {failure.log_tail && (
        <details>
          <summary>{t("logTail")}</summary>
          <pre>{failure.log_tail}</pre>
        </details>
      )}
    </section>
  );
}
