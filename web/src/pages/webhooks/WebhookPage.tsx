import { useEffect, useState } from "preact/hooks";
import { get, send } from "../../api";
import { type Call, deleteWebhook, disableWebhook, enableWebhook, testWebhook } from "../../calls";
import { Calls } from "../../parts/Calls";
import { Confirm } from "../../parts/Confirm";
import { useLoaded } from "../../parts/load";
import { usePages } from "../../parts/pages";
import { Problem } from "../../parts/Problem";
import { go } from "../../route";
import { t } from "../../words";
import { Deliveries } from "./Deliveries";
import type { Delivery, Webhook } from "./types";
import { Enabled } from "./Webhooks";

const EVERY_MS = 2000;

export function WebhookPage({ id }: { id: string }) {
  const { data: webhook, error, reload } = useLoaded((signal) => get<Webhook>(`/webhooks/${id}`, signal), [id]);
  const sent = usePages<Delivery>(`/webhooks/${id}/deliveries`, {}, (delivery) => delivery.id);
  const [refused, setRefused] = useState<unknown>();
  const [deleting, setDeleting] = useState(false);

  function again(): void {
    reload();
    sent.reload();
  }

  function run(call: Call): void {
    setRefused(undefined);
    send(call).then(again, setRefused);
  }

  // While a message waits, what becomes of it is shown. A reader who has loaded older ones keeps them.
  const waits = sent.rows?.some((each) => each.status === "pending") && sent.rows.length <= 50;
  useEffect(() => {
    if (!waits) return;
    const timer = setInterval(() => document.hidden || again(), EVERY_MS);
    return () => clearInterval(timer);
  }, [waits]);

  if (!webhook) return error === undefined ? <p class="quiet">{t("loading")}</p> : <Problem error={error} again={reload} />;
  const turn = webhook.enabled ? disableWebhook(id) : enableWebhook(id);
  const problem = refused ?? error ?? sent.error;
  return (
    <>
      <div class="row">
        <h1>{webhook.url}</h1>
        <Enabled of={webhook} />
      </div>
      <p class="quiet">
        {webhook.owner} · {webhook.events.join(", ")}
      </p>
      <div class="row actions" role="toolbar" aria-label={t("actions")}>
        <button onClick={() => run(testWebhook(id))}>{t("webhooks.test")}</button>
        <button onClick={() => run(turn)}>{t(webhook.enabled ? "webhooks.disable" : "webhooks.enable")}</button>
        <button class="danger" onClick={() => setDeleting(true)}>
          {t("delete")}
        </button>
        <Calls
          list={[
            { title: t("webhooks.test"), calls: [testWebhook(id)] },
            { title: t(webhook.enabled ? "webhooks.disable" : "webhooks.enable"), calls: [turn] },
            { title: t("delete"), calls: [deleteWebhook(id)] },
          ]}
        />
      </div>
      {problem !== undefined && <Problem error={problem} again={again} />}
      <h2 class="gap">{t("webhooks.deliveries")}</h2>
      <Deliveries of={sent} run={run} />
      {deleting && (
        <Confirm
          title={`${t("delete")}: ${webhook.url}`}
          text={t("webhooks.deleteHelp")}
          action={t("delete")}
          confirm={() => send(deleteWebhook(id)).then(() => go(["webhooks"]), setRefused)}
          close={() => setDeleting(false)}
        />
      )}
    </>
  );
}
