import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get } from "../../api";
import { chatWith } from "../../calls";
import { Calls } from "../../parts/Calls";
import { isComposing } from "../../parts/composing";
import { Problem } from "../../parts/Problem";
import { route } from "../../route";
import { t } from "../../words";
import { setAddress, writeSetting } from "./address";
import { ask, askAgain, busy, conversation, messagesFor, startOver, stop, update } from "./conversation";
import { labelOf } from "./labels";
import type { Message } from "./messages";
import type { Choice } from "./models";
import { readSampling, readSetting } from "./sampling";

type Example = { messages: Message[]; reference: Message; desirable: boolean | null; tools: unknown[] | null; chat_template_kwargs: Record<string, unknown> | null };
type HeldOut = { index: number; count: number; example: Example | null; reason: string | null };
type Props = { jobId: string; choices: readonly Choice[] };

export function Question({ jobId, choices }: Props) {
  const [error, setError] = useState<unknown>();
  const field = useRef<HTMLTextAreaElement>(null);
  const { questions, opening, draft } = conversation.value;
  const asksByItself = questions.length === 0 && opening.at(-1)?.role === "tool";
  const canAsk = !busy.value && choices.length > 0 && (draft.trim() !== "" || asksByItself);

  useEffect(() => {
    const stopOnEscape = (event: KeyboardEvent) => event.key === "Escape" && !isComposing(event) && !document.querySelector("dialog[open]") && stop();
    addEventListener("keydown", stopOnEscape);
    return () => {
      removeEventListener("keydown", stopOnEscape);
      stop();
    };
  }, []);

  function send(): void {
    if (!canAsk) return;
    // What is asked from now on stays, also when a job saves something newer.
    setAddress("with", choices.map(({ key }) => key).join());
    void ask(draft.trim() && draft, choices);
  }

  function onKeyDown(event: KeyboardEvent): void {
    // An Enter that chooses a word of an input method sends nothing.
    if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
    event.preventDefault();
    send();
  }

  async function loadExample(): Promise<void> {
    setError(undefined);
    const before = route.value.query.get("example");
    try {
      const found = await readExample(jobId, before === null ? 0 : Number(before) + 1);
      if (!found.example) throw new ApiError(200, "no_example", found.reason!);
      setAddress("example", String(found.index));
      startOver(jobId, laidOut(found.example));
      field.current?.focus();
    } catch (problem) {
      setError(problem);
    }
  }

  // With the same seed a model says the same again.
  function repeat(): void {
    if (readSampling().temperature > 0) writeSetting("seed", (readSetting("seed") + 1) % 2 ** 32);
    void askAgain(choices);
  }

  function clear(): void {
    setAddress("example", "");
    startOver(jobId);
    field.current?.focus();
  }

  return (
    <form
      class="question-form"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="stack">
        {t("chat.question")}
        <textarea ref={field} rows={2} value={draft} placeholder={t("chat.keys")} onInput={(event) => update({ draft: event.currentTarget.value })} onKeyDown={onKeyDown} />
      </label>
      <div class="row">
        {busy.value ? (
          <button type="button" onClick={stop}>
            {t("chat.stop")}
          </button>
        ) : (
          <button class="primary" disabled={!canAsk}>
            {t("chat.send")}
          </button>
        )}
        <button type="button" disabled={busy.value || questions.length === 0} onClick={repeat}>
          {t("chat.again")}
        </button>
        <button type="button" disabled={busy.value} onClick={() => void loadExample()}>
          {t("chat.example")}
        </button>
        <button type="button" disabled={questions.length + opening.length === 0 && draft === ""} onClick={clear}>
          {t("chat.clear")}
        </button>
        <CopiedCalls jobId={jobId} choices={choices} />
      </div>
      {error !== undefined && <Problem error={error} />}
    </form>
  );
}

// The question that is being written, or else the last one.
function CopiedCalls({ jobId, choices }: Props) {
  const { questions, extras, draft } = conversation.value;
  const index = draft.trim() ? questions.length : Math.max(0, questions.length - 1);
  const question = draft.trim() || questions[index] || t("chat.question");
  const list = choices.map((choice) => {
    const body = { model: choice.model, messages: messagesFor(choice.key, index, question), ...extras, ...readSampling() };
    return { title: labelOf(choice), calls: [chatWith(choice.key.startsWith("job_") ? choice.key : jobId, choice, body)] };
  });
  return <Calls list={list} of={t("chat.send")} />;
}

// After the last one comes the first.
async function readExample(jobId: string, index: number): Promise<HeldOut> {
  const read = (each: number) => get<HeldOut>(`/jobs/${jobId}/held-out?index=${each}`);
  const found = await read(index);
  return index > 0 && index >= found.count ? read(0) : found;
}

function laidOut({ messages, reference, desirable, tools, chat_template_kwargs }: Example) {
  const last = messages.at(-1);
  const draft = last?.role === "user" ? last.content ?? "" : "";
  const opening = draft ? messages.slice(0, -1) : messages;
  const extras = { ...(tools && { tools }), ...(chat_template_kwargs && { chat_template_kwargs }) };
  return { draft, opening, extras, reference: { text: reference.content || JSON.stringify(reference.tool_calls), isBad: desirable === false } };
}
