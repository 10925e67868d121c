import { useEffect, useRef } from "preact/hooks";
import { isWord, t } from "../../words";
import { AnswerView, GoneAnswer } from "./AnswerView";
import { conversation } from "./conversation";
import type { Message } from "./messages";
import type { Choice } from "./models";

// Each question once, and below it the answers side by side.
export function Turns({ jobId, choices, gone }: { jobId: string; choices: readonly Choice[]; gone: readonly Choice[] }) {
  const { opening, questions, reference } = conversation.value;
  const list = useRef<HTMLOListElement>(null);
  const shown = useRef(questions.length);
  useEffect(() => {
    if (questions.length > shown.current) list.current?.lastElementChild?.scrollIntoView();
    shown.current = questions.length;
  }, [questions.length]);
  return (
    <ol ref={list} class="turns" aria-label={t("chat.conversation")}>
      {opening.map((message) => (
        <Said message={message} />
      ))}
      {questions.map((question, turn) => (
        <li>
          {question && (
            <p class="question">
              <span class="quiet">{t("chat.you")}</span>
              <span class="text">{question}</span>
            </p>
          )}
          <div class="answers">
            {choices.map((choice) => (
              <AnswerView key={choice.key} jobId={jobId} choice={choice} choices={choices} turn={turn} />
            ))}
            {gone.map((choice) => (
              <GoneAnswer key={choice.key} choice={choice} turn={turn} />
            ))}
            {/* The columns of all questions are alike. */}
            {reference !== null && (turn === 0 ? <Reference {...reference} /> : <div />)}
          </div>
        </li>
      ))}
      {questions.length === 0 && reference !== null && (
        <li>
          <div class="answers">
            <Reference {...reference} />
          </div>
        </li>
      )}
    </ol>
  );
}

// What a held-out example has before its question.
function Said({ message }: { message: Message }) {
  const word = `chat.role.${message.role}`;
  return (
    <li>
      <p class="question">
        <span class="quiet">{isWord(word) ? t(word) : message.role}</span>
        <span class="text">{message.content || JSON.stringify(message.tool_calls)}</span>
      </p>
    </li>
  );
}

function Reference({ text, isBad }: { text: string; isBad: boolean }) {
  const title = t(isBad ? "chat.badReference" : "chat.reference");
  return (
    <section class="answer reference" aria-label={title}>
      <h2>{title}</h2>
      <p class="text">{text}</p>
    </section>
  );
}
