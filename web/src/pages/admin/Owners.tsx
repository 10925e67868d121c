import { useState } from "preact/hooks";
import { get } from "../../api";
import { bytes, integer } from "../../format";
import { useLoaded } from "../../parts/load";
import { usePages } from "../../parts/pages";
import { Problem } from "../../parts/Problem";
import { go, href, route } from "../../route";
import { t } from "../../words";
import { EditLimits } from "./EditLimits";
import type { Quota } from "./types";

const EVERYBODY = "*";

export function Owners() {
  const chosen = route.value.query.get("owner");
  const common = useLoaded((signal) => get<Quota>(`/quotas/${encodeURIComponent(chosen ?? EVERYBODY)}`, signal), [chosen]);
  const { rows, hasMore, error, older, reload } = usePages<Quota>("/quotas", {}, (quota) => quota.owner);
  const [edited, setEdited] = useState<Quota>();
  const problem = error ?? common.error;
  const again = () => {
    common.reload();
    reload();
  };
  const shown = common.data === undefined || !rows ? undefined : chosen ? [common.data] : [common.data, ...rows];
  return (
    <>
      <p class="quiet">{t("owners.help")}</p>
      {chosen && <button onClick={() => go(["admin", "owners"])}>{t("owners.all")}</button>}
      {problem !== undefined && <Problem error={problem} again={again} />}
      {!shown && problem === undefined && <p class="quiet">{t("loading")}</p>}
      {shown && (
        <div class="scroll" tabIndex={0} role="region" aria-label={t("admin.owners")}>
          <table class="plain wide">
            <thead>
              <tr>
                <th scope="col">{t("owner")}</th>
                <th scope="col">{t("owners.running")}</th>
                <th scope="col">{t("owners.queued")}</th>
                <th scope="col">{t("owners.bytes")}</th>
                <th scope="col">{t("actions")}</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((quota) => (
                <Row key={quota.owner} quota={quota} edit={() => setEdited(quota)} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {hasMore && !chosen && <button onClick={older}>{t("older")}</button>}
      {edited && <EditLimits quota={edited} done={again} close={() => setEdited(undefined)} />}
    </>
  );
}

function Row({ quota, edit }: { quota: Quota; edit: () => void }) {
  const { owner, limits, used } = quota;
  const all = owner === EVERYBODY;
  return (
    <tr>
      <th scope="row">{all ? t("owners.everybody") : <a href={href(["admin", "keys"], { owner })}>{owner}</a>}</th>
      <Use used={all ? null : used.running_jobs} limit={limits.running_jobs} shown={integer} />
      <Use used={all ? null : used.queued_jobs} limit={limits.queued_jobs} shown={integer} />
      <Use used={all ? null : used.bytes} limit={limits.bytes} shown={bytes} />
      <td class="actions">
        <button aria-label={`${t("owners.edit")}: ${all ? t("owners.everybody") : owner}`} onClick={edit}>
          {t("owners.edit")}
        </button>
      </td>
    </tr>
  );
}

type UseProps = { used: number | null; limit: number | null; shown: (value: number) => string };

function Use({ used, limit, shown }: UseProps) {
  const most = limit === null ? t("owners.unlimited") : shown(limit);
  return (
    <td class="number">
      {used === null ? most : `${shown(used)} / ${most}`}
      {used !== null && limit !== null && limit > 0 && (
        <>
          {" "}
          <meter min={0} max={limit} high={limit * 0.9} value={Math.min(used, limit)} aria-hidden="true" />
        </>
      )}
    </td>
  );
}
