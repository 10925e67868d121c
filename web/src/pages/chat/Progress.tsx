import { type Word, t } from "../../words";
import { busy, conversation, outlivesReload } from "./conversation";
import type { Choice } from "./models";

// In one line for all models how far the last question is, also for those who do not see the answers arrive.
export function Progress({ choices }: { choices: readonly Choice[] }) {
  const { questions, answers } = conversation.value;
  const states = choices.map(({ key }) => answers[key]?.[questions.length - 1]?.state);
  const word = ((): Word | null => {
    if (busy.value) return states.includes("writing") ? "chat.progress.writing" : "chat.progress.waiting";
    if (states.includes("stopped")) return "chat.progress.stopped";
    return states.includes("complete") ? "chat.progress.finished" : null;
  })();
  return (
    <p role="status" class="quiet">
      {word && t(word)} {!outlivesReload.value && t("chat.notKept")}
    </p>
  );
}
