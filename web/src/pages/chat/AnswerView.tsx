import { useState } from "preact/hooks";
import { compact, integer } from "../../format";
import { Calls } from "../../parts/Calls";
import { Problem } from "../../parts/Problem";
import { type Word, isWord, t } from "../../words";
import { type Answer, type Trouble, answerAll, busy, conversation, firstOpen } from "./conversation";
import { labelOf } from "./labels";
import { withoutThoughts } from "./messages";
import type { Choice } from "./models";
import { comparable, isRateable, isWhole, prefer, preferenceCalls, rate, ratingCall } from "./verdicts";

type Props = { jobId: string; choice: Choice; choices: readonly Choice[]; turn: number };

export function AnswerView(props: Props) {
  const { choice, turn } = props;
  const answer = conversation.value.answers[choice.key]?.[turn];
  const label = labelOf(choice);
  return (
    <section class="answer" aria-label={label} aria-busy={answer?.state === "waiting" || answer?.state === "writing"}>
      <h2>{label}</h2>
      {answer && <Text answer={answer} />}
      {answer?.state === "waiting" && <p class="quiet">{t(answer.trouble ? "chat.retrying" : "chat.waiting")}</p>}
      {answer?.trouble && <Explained trouble={answer.trouble} calm={answer.state === "waiting"} />}
      {!busy.value && turn === firstOpen(choice.key) && (
        <p>
          <button onClick={() => void answerAll([choice])}>{t(answer ? "retry" : "chat.answer")}</button>
        </p>
      )}
      {answer && <Numbers answer={answer} />}
      {isRateable(answer) && <Verdict {...props} answer={answer} />}
    </section>
  );
}

// What a model has said that nobody can ask or rate any more.
export function GoneAnswer({ choice, turn }: { choice: Choice; turn: number }) {
  const answer = conversation.value.answers[choice.key]?.[turn];
  const label = t("chat.noLonger", { name: labelOf(choice) });
  return (
    <section class="answer" aria-label={label}>
      <h2>{label}</h2>
      {answer && <Text answer={answer} />}
      {answer && <Numbers answer={answer} />}
    </section>
  );
}

// As text alone, whatever it says.
function Text({ answer }: { answer: Answer }) {
  const { thoughts, answer: text } = withoutThoughts(answer.text);
  return (
    <>
      {thoughts && (
        <details>
          <summary>{t("chat.thoughts")}</summary>
          <p class="text quiet">{thoughts}</p>
        </details>
      )}
      {text && <p class="text">{text}</p>}
      {answer.calls.map((call) => (
        <pre>
          {call.function.name}({call.function.arguments})
        </pre>
      ))}
      {answer.state === "complete" && !answer.text && answer.calls.length === 0 && <p class="quiet">{t("chat.empty")}</p>}
    </>
  );
}

function Explained({ trouble: { code, message }, calm }: { trouble: Trouble; calm: boolean }) {
  const word = `chat.error.${code}`;
  return (
    <p role={calm ? undefined : "alert"} class={calm ? "quiet" : "problem"}>
      {code === "unreachable" ? t("chat.lost") : isWord(word) ? t(word) : null} {code !== "unreachable" && <span lang="en">{message}</span>}
    </p>
  );
}

const FINISHES: Readonly<Record<string, Word>> = { length: "chat.cutOff", tool_calls: "chat.called" };

function Numbers({ answer: { state, finish, tokens, firstSeconds, seconds } }: { answer: Answer }) {
  const parts = [
    ...(state === "stopped" ? [t("chat.stopped")] : []),
    ...(finish && FINISHES[finish] ? [t(FINISHES[finish])] : []),
    ...(tokens === null ? [] : [t("chat.tokens", { n: integer(tokens) })]),
    ...(firstSeconds === null ? [] : [t("chat.first", { time: firstSeconds.toFixed(2) })]),
    ...(tokens === null || tokens < 2 || seconds === 0 ? [] : [t("chat.speed", { n: compact(Number(((tokens - 1) / seconds).toPrecision(3))) })]),
  ];
  return parts.length > 0 ? <p class="quiet number">{parts.join(" · ")}</p> : null;
}

function Verdict({ jobId, choice, choices, turn, answer }: Props & { answer: Answer }) {
  const [error, setError] = useState<unknown>();
  const [saving, setSaving] = useState(false);
  function save(work: Promise<void>): void {
    setSaving(true);
    setError(undefined);
    work.catch(setError).finally(() => setSaving(false));
  }
  const rated = (label: boolean): boolean => answer.rating?.label === label;
  const pairs = comparable(turn, choice, choices);
  return (
    <div class="row verdicts" role="group" aria-label={t("chat.rate", { name: labelOf(choice) })}>
      {isWhole(answer) && (
        <button disabled={saving || busy.value} aria-pressed={rated(true)} onClick={() => save(rate(jobId, turn, choice, true))}>
          {t("chat.good")}
        </button>
      )}
      <button disabled={saving || busy.value} aria-pressed={rated(false)} onClick={() => save(rate(jobId, turn, choice, false))}>
        {t("chat.bad")}
      </button>
      {pairs.length > 0 && (
        <button disabled={saving || busy.value} title={t("chat.betterHelp")} aria-pressed={answer.preferences.length > 0} onClick={() => save(prefer(jobId, turn, choice, choices))}>
          {t("chat.better")}
        </button>
      )}
      <Calls
        of={t("chat.rate", { name: labelOf(choice) })}
        list={[
          ...(isWhole(answer) ? [{ title: t("chat.good"), calls: [ratingCall(jobId, turn, choice, true)] }] : []),
          { title: t("chat.bad"), calls: [ratingCall(jobId, turn, choice, false)] },
          ...(pairs.length > 0 ? [{ title: t("chat.better"), calls: preferenceCalls(jobId, turn, choice, choices) }] : []),
        ]}
      />
      {!isWhole(answer) && <span class="quiet">{t("chat.notWhole")}</span>}
      {error !== undefined && <Problem error={error} />}
    </div>
  );
}
