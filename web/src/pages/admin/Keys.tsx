import { useState } from "preact/hooks";
import { send } from "../../api";
import { DAY_MS, createKey, revokeKey } from "../../calls";
import { moment } from "../../format";
import { Calls } from "../../parts/Calls";
import { Confirm } from "../../parts/Confirm";
import { usePages } from "../../parts/pages";
import { Problem } from "../../parts/Problem";
import { Secret } from "../../parts/Secret";
import { go, href, route } from "../../route";
import { t } from "../../words";
import { NewKey } from "./NewKey";
import type { Key, NewlyMade } from "./types";

const nameOf = (key: Key): string => `${key.owner}${key.name ? ` · ${key.name}` : ""} …${key.hint}`;
// As long valid as the first one was when it was made.
const likeIt = ({ owner, name, admin, created_at, expires_at }: Key) =>
  createKey({ owner, name, admin, days: expires_at === null ? null : Math.max(1, Math.round((Date.parse(expires_at) - Date.parse(created_at)) / DAY_MS)) });

export function Keys() {
  const owner = route.value.query.get("owner");
  const { rows, hasMore, error, older, reload } = usePages<Key>("/keys", owner ? { owner } : {}, (key) => key.id);
  const [made, setMade] = useState<NewlyMade>();
  const [asked, setAsked] = useState<{ key: Key; action: "revoke" | "rotate" }>();
  const [refused, setRefused] = useState<unknown>();

  function shown(key: NewlyMade): void {
    setMade(key);
    reload();
  }

  function act({ key, action }: NonNullable<typeof asked>): void {
    setRefused(undefined);
    if (action === "rotate") send<NewlyMade>(likeIt(key)).then(shown, setRefused);
    else send(revokeKey(key.id)).then(reload, setRefused);
  }

  return (
    <>
      <NewKey made={shown} />
      {owner && (
        <p class="row">
          {t("keys.of", { owner })} <button onClick={() => go(["admin", "keys"])}>{t("keys.all")}</button>
        </p>
      )}
      {(error ?? refused) !== undefined && <Problem error={error ?? refused} again={reload} />}
      {!rows && error === undefined && <p class="quiet">{t("loading")}</p>}
      {rows?.length === 0 && <p class="quiet">{t("keys.none")}</p>}
      {rows !== undefined && rows.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={t("admin.keys")}>
          <table class="plain wide">
            <thead>
              <tr>
                <th scope="col">{t("owner")}</th>
                <th scope="col">{t("keys.name")}</th>
                <th scope="col">{t("keys.rights")}</th>
                <th scope="col">{t("keys.secret")}</th>
                <th scope="col">{t("created")}</th>
                <th scope="col">{t("status")}</th>
                <th scope="col">{t("actions")}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((key) => (
                <Row key={key.id} row={key} ask={(action) => setAsked({ key, action })} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {hasMore && <button onClick={older}>{t("older")}</button>}
      {asked && (
        <Confirm
          title={`${t(`keys.${asked.action}`)}: ${nameOf(asked.key)}`}
          text={t(`keys.${asked.action}Help`)}
          action={t(`keys.${asked.action}`)}
          confirm={() => act(asked)}
          close={() => setAsked(undefined)}
        />
      )}
      {made && <Secret title={t("keys.made", { owner: made.owner })} secret={made.secret} close={() => setMade(undefined)} />}
    </>
  );
}

function Row({ row: key, ask }: { row: Key; ask: (action: "revoke" | "rotate") => void }) {
  const open = isOpen(key);
  return (
    <tr>
      <th scope="row">
        <a href={href(["admin", "owners"], { owner: key.owner })}>{key.owner}</a>
      </th>
      <td>{key.name ?? <span class="quiet">–</span>}</td>
      <td class="word">{t(key.admin ? "keys.admin" : "keys.ordinary")}</td>
      <td>
        <code>…{key.hint}</code>
      </td>
      <td class="number">{moment(key.created_at)}</td>
      <td>
        <Validity of={key} />
      </td>
      <td class="actions">
        {open && (
          <>
            <button aria-label={`${t("keys.rotate")}: ${nameOf(key)}`} onClick={() => ask("rotate")}>
              {t("keys.rotate")}
            </button>{" "}
            <button class="danger" aria-label={`${t("keys.revoke")}: ${nameOf(key)}`} onClick={() => ask("revoke")}>
              {t("keys.revoke")}
            </button>{" "}
            <Calls
              of={nameOf(key)}
              list={[
                { title: t("keys.rotate"), calls: [likeIt(key)] },
                { title: t("keys.revoke"), calls: [revokeKey(key.id)] },
              ]}
            />
          </>
        )}
      </td>
    </tr>
  );
}

const isOpen = ({ revoked_at, expires_at }: Key): boolean => revoked_at === null && (expires_at === null || Date.parse(expires_at) > Date.now());

function Validity({ of: key }: { of: Key }) {
  if (key.revoked_at !== null) return <span class="pill">{t("keys.revoked", { time: moment(key.revoked_at) })}</span>;
  if (!isOpen(key)) return <span class="pill draining">{t("keys.expired", { time: moment(key.expires_at!) })}</span>;
  return <span class="pill ready">{key.expires_at === null ? t("keys.valid") : t("keys.until", { time: moment(key.expires_at) })}</span>;
}
