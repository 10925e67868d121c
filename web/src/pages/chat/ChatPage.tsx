// Asks a base model, what a job has trained and its checkpoints the same question, and shows their answers side by side.
import { useEffect } from "preact/hooks";
import { useLoaded } from "../../parts/load";
import { Problem } from "../../parts/Problem";
import { href, route } from "../../route";
import { t } from "../../words";
import "./chat.css";
import { ChooseJob } from "./ChooseJob";
import { ModelPicker } from "./ModelPicker";
import { Progress } from "./Progress";
import { Question } from "./Question";
import { Ratings } from "./Ratings";
import { Settings } from "./Settings";
import { Turns } from "./Turns";
import { restoreAddress } from "./address";
import { conversation, startOver } from "./conversation";
import { type Models, chosen, goneOf, readModels } from "./models";

const POLL_MS = 5000;

export function ChatPage() {
  const jobId = route.value.query.get("job");
  return jobId ? <Chat key={jobId} jobId={jobId} /> : <ChooseJob />;
}

function Chat({ jobId }: { jobId: string }) {
  const { data, error, reload } = useLoaded((signal) => readModels(jobId, signal), [jobId]);
  // A job that trains has new checkpoints.
  useEffect(() => {
    if (data?.ended !== false) return;
    const timer = setTimeout(reload, POLL_MS);
    return () => clearTimeout(timer);
  }, [data, error]);
  useEffect(() => {
    if (conversation.value.jobId !== jobId) startOver(jobId);
    restoreAddress();
  }, [jobId, route.value]);
  if (error !== undefined && !data) return <Problem error={error} again={reload} />;
  if (!data || conversation.value.jobId !== jobId) return <p class="quiet">{t("loading")}</p>;
  return <Room models={data} />;
}

function Room({ models }: { models: Models }) {
  const choices = chosen(models, route.value.query.get("with"));
  return (
    <div class="chat">
      <div class="row">
        <h1>{t("chat")}</h1>
        <a href={href(["jobs", models.jobId])}>{models.name}</a>
      </div>
      <ModelPicker models={models} choices={choices} />
      <Settings />
      <Turns jobId={models.jobId} choices={choices} gone={goneOf(models, Object.keys(conversation.value.answers))} />
      <Progress choices={choices} />
      <Question jobId={models.jobId} choices={choices} />
      <Ratings jobId={models.jobId} />
    </div>
  );
}
