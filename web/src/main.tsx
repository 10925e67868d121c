import { signal } from "@preact/signals";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import { get, remove } from "./api";
import { connected } from "./live/stream";
import { Admin } from "./pages/admin/Admin";
import { ChatPage } from "./pages/chat/ChatPage";
import { Compare } from "./pages/Compare";
import { Jobs } from "./pages/Jobs";
import { JobPage } from "./pages/job/JobPage";
import { Machines } from "./pages/Machines";
import { NewJob } from "./pages/new/NewJob";
import { Secrets } from "./pages/Secrets";
import { SweepPage } from "./pages/sweeps/SweepPage";
import { Sweeps } from "./pages/sweeps/Sweeps";
import { SignIn } from "./pages/SignIn";
import { WebhookPage } from "./pages/webhooks/WebhookPage";
import { Webhooks } from "./pages/webhooks/Webhooks";
import { Preferences } from "./parts/Preferences";
import { Problem } from "./parts/Problem";
import { href, route } from "./route";
import "./style.css";
import type { Session } from "./types";
import { type Word, t } from "./words";

const session = signal<Session | null>(null);
const problem = signal<unknown>(undefined);

function readSession(): void {
  get<Session>("/session").then(
    (found) => {
      session.value = found;
      problem.value = undefined;
    },
    (error: unknown) => {
      problem.value = error;
    },
  );
}

function Page() {
  useEffect(readSession, []);
  if (problem.value !== undefined) return <Problem error={problem.value} again={readSession} />;
  if (session.value === null) return <p class="quiet">{t("loading")}</p>;
  if (session.value.owner === null) return <SignIn done={(found) => (session.value = found)} />;
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        {t("skip")}
      </a>
      <Bar session={session.value} />
      {!connected.value && (
        <p role="status" class="offline">
          {t("offline")}
        </p>
      )}
      <main id="content" tabIndex={-1}>
        <Content admin={session.value.admin} />
      </main>
    </>
  );
}

// The part of the address after "#" says which page this is.
function skip(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Content({ admin }: { admin: boolean }) {
  const [room = "jobs", id, tab = "curves"] = route.value.path;
  if (room === "jobs") return id ? <JobPage key={id} id={id} tab={tab} /> : <Jobs />;
  if (room === "new") return <NewJob />;
  if (room === "sweeps") return id ? <SweepPage key={id} id={id} /> : <Sweeps />;
  if (room === "chat") return <ChatPage />;
  if (room === "compare") return <Compare />;
  if (room === "machines") return <Machines />;
  if (room === "secrets") return <Secrets />;
  if (room === "webhooks") return id ? <WebhookPage key={id} id={id} /> : <Webhooks />;
  if (room === "admin" && admin) return <Admin tab={id ?? ""} />;
  return <p>{t("notFound")}</p>;
}

const ROOMS = ["jobs", "sweeps", "compare", "chat", "machines", "secrets", "webhooks"] as const satisfies readonly Word[];

function Bar({ session: { owner, admin, signed_in } }: { session: Session }) {
  const [room = "jobs"] = route.value.path;
  return (
    <header class="bar">
      <a class="brand" href={href([])}>
        finetuned
      </a>
      <nav aria-label="finetuned">
        {[...ROOMS, ...(admin ? (["admin"] as const) : [])].map((each) => (
          <a href={href([each])} aria-current={room === each ? "page" : undefined}>
            {t(each)}
          </a>
        ))}
        <a href={href(["new"])} aria-current={room === "new" ? "page" : undefined}>
          {t("newJob")}
        </a>
      </nav>
      <span class="quiet who">{owner}</span>
      <Preferences />
      {signed_in && <button onClick={signOut}>{t("signOut")}</button>}
    </header>
  );
}

async function signOut(): Promise<void> {
  await remove("/session");
  // What was read with the key is gone with the document, and so is a job that was not submitted.
  sessionStorage.clear();
  location.reload();
}

render(<Page />, document.getElementById("page")!);
