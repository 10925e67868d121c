import { type Call, retryDelivery } from "../../calls";
import { moment } from "../../format";
import { Calls } from "../../parts/Calls";
import type { usePages } from "../../parts/pages";
import { t } from "../../words";
import type { Delivery } from "./types";

const LOOKS: Record<Delivery["status"], string> = { pending: "leased", delivered: "ready", failed: "lost" };

type Props = { of: ReturnType<typeof usePages<Delivery>>; run: (call: Call) => void };

export function Deliveries({ of: { rows, hasMore, error, older }, run }: Props) {
  if (!rows) return error === undefined ? <p class="quiet">{t("loading")}</p> : null;
  if (rows.length === 0) return <p class="quiet">{t("webhooks.noDeliveries")}</p>;
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("webhooks.deliveries")}>
        <table class="plain wide">
          <thead>
            <tr>
              <th scope="col">{t("created")}</th>
              <th scope="col">{t("webhooks.event")}</th>
              <th scope="col">{t("status")}</th>
              <th scope="col">{t("webhooks.attempts")}</th>
              <th scope="col">{t("webhooks.result")}</th>
              <th scope="col">{t("actions")}</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((each) => (
              <Row key={each.id} delivery={each} run={run} />
            ))}
          </tbody>
        </table>
      </div>
      {hasMore && <button onClick={older}>{t("older")}</button>}
    </>
  );
}

function Row({ delivery, run }: { delivery: Delivery; run: (call: Call) => void }) {
  const { id, status, next_attempt_at: next } = delivery;
  const name = `${delivery.type} ${moment(delivery.created_at)}`;
  return (
    <tr>
      <td class="number">{moment(delivery.created_at)}</td>
      <td>
        <details>
          <summary>{delivery.type}</summary>
          <pre>{JSON.stringify(delivery.payload, null, 2)}</pre>
        </details>
      </td>
      <td>
        <span class={`pill ${LOOKS[status]}`}>{t(`delivery.${status}`)}</span>
      </td>
      <td class="number">{delivery.attempts}</td>
      <td>
        {delivery.response_status !== null && <span class="number">{delivery.response_status} </span>}
        {delivery.error && <span class="problem">{delivery.error} </span>}
        {delivery.delivered_at && moment(delivery.delivered_at)}
        {next && delivery.attempts > 0 && <span class="quiet">{t("webhooks.next", { time: moment(next) })}</span>}
      </td>
      <td class="actions">
        <button aria-label={`${t("webhooks.resend")}: ${name}`} onClick={() => run(retryDelivery(id))}>
          {t("webhooks.resend")}
        </button>{" "}
        <Calls of={name} list={[{ title: t("webhooks.resend"), calls: [retryDelivery(id)] }]} />
      </td>
    </tr>
  );
}
