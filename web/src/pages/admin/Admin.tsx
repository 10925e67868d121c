import { href } from "../../route";
import { type Word, t } from "../../words";
import { Audit } from "./Audit";
import { Keys } from "./Keys";
import { Owners } from "./Owners";

const TABS = { keys: Keys, owners: Owners, audit: Audit };
const WORDS: Record<Tab, Word> = { keys: "admin.keys", owners: "admin.owners", audit: "admin.audit" };

type Tab = keyof typeof TABS;

export function Admin({ tab }: { tab: string }) {
  const shown: Tab = Object.hasOwn(TABS, tab) ? (tab as Tab) : "keys";
  const Content = TABS[shown];
  return (
    <>
      <h1>{t("admin")}</h1>
      <nav class="tabs" aria-label={t("admin")}>
        {(Object.keys(TABS) as Tab[]).map((each) => (
          <a href={href(["admin", each])} aria-current={each === shown ? "page" : undefined}>
            {t(WORDS[each])}
          </a>
        ))}
      </nav>
      <Content />
    </>
  );
}
