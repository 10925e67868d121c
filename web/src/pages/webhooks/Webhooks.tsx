import { useState } from "preact/hooks";
import { moment } from "../../format";
import { usePages } from "../../parts/pages";
import { Problem } from "../../parts/Problem";
import { Secret } from "../../parts/Secret";
import { href } from "../../route";
import { t } from "../../words";
import { NewWebhook } from "./NewWebhook";
import type { NewlyAdded, Webhook } from "./types";

export function Webhooks() {
  const { rows, hasMore, error, older, reload } = usePages<Webhook>("/webhooks", {}, (webhook) => webhook.id);
  const [added, setAdded] = useState<NewlyAdded>();
  return (
    <>
      <h1>{t("webhooks")}</h1>
      <p class="quiet">{t("webhooks.help")}</p>
      <NewWebhook
        added={(webhook) => {
          setAdded(webhook);
          reload();
        }}
      />
      {error !== undefined && <Problem error={error} again={reload} />}
      {!rows && error === undefined && <p class="quiet">{t("loading")}</p>}
      {rows?.length === 0 && <p class="quiet">{t("webhooks.none")}</p>}
      {rows !== undefined && rows.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={t("webhooks")}>
          <table class="plain wide">
            <thead>
              <tr>
                <th scope="col">{t("webhooks.url")}</th>
                <th scope="col">{t("status")}</th>
                <th scope="col">{t("owner")}</th>
                <th scope="col">{t("events")}</th>
                <th scope="col">{t("created")}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((webhook) => (
                <tr key={webhook.id}>
                  <th scope="row">
                    <a href={href(["webhooks", webhook.id])}>{webhook.url}</a>
                  </th>
                  <td>
                    <Enabled of={webhook} />
                  </td>
                  <td>{webhook.owner}</td>
                  <td>{webhook.events.join(", ")}</td>
                  <td class="number">{moment(webhook.created_at)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {hasMore && <button onClick={older}>{t("older")}</button>}
      {added && <Secret title={t("webhooks.secret")} secret={added.secret} close={() => setAdded(undefined)} />}
    </>
  );
}

export function Enabled({ of: { enabled } }: { of: Webhook }) {
  return <span class={enabled ? "pill ready" : "pill draining"}>{t(enabled ? "webhooks.enabled" : "webhooks.disabled")}</span>;
}
