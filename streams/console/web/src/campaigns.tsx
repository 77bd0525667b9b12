// The list of campaigns: live figures, one page at a time.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { type CampaignLine, type CampaignPage, get } from "./api";
import { Sparkline } from "./charts";
import { count, percent, time } from "./format";
import { type Key, t } from "./i18n";
import { useLoaded } from "./loaded";
import { Loading, Pace, Ratio, Spend } from "./parts";
import { figures, listWindow } from "./state";

const REFRESH_MS = 8_000;
const TYPING_MS = 250;
const LEAST_MINUTES = 8;
export const WINDOWS = ["1m", "5m", "15m", "1h", "day", "total"] as const;

const search = signal("");
const sort = signal<{ key: string; order: "asc" | "desc" }>({ key: "spend", order: "desc" });
const cursors = signal<string[]>([]);

type Column = { key: string | null; text: Key; help?: Key; isNumber: boolean };
const COLUMNS: Column[] = [
  { key: "name", text: "campaign", isNumber: false },
  { key: "ctr", text: "ctr", help: "ctr_help", isNumber: true },
  { key: "cvr", text: "cvr", help: "cvr_help", isNumber: true },
  { key: "impressions", text: "impressions", isNumber: true },
  { key: "clicks", text: "clicks", isNumber: true },
  { key: "spend", text: "spend", isNumber: true },
  { key: "invalid", text: "invalid", help: "invalid_help", isNumber: true },
  { key: null, text: "pacing", isNumber: false },
  { key: null, text: "spark", isNumber: false },
];

function order(by: string): void {
  const now = sort.value;
  const first = by === "name" ? "asc" : "desc";
  sort.value = { key: by, order: now.key === by ? (now.order === "asc" ? "desc" : "asc") : first };
  cursors.value = [];
}

function Heading({ column }: { column: Column }) {
  const is = column.key !== null && sort.value.key === column.key;
  const sorted = is ? (sort.value.order === "asc" ? "ascending" : "descending") : undefined;
  return (
    <th scope="col" role="columnheader" class={column.isNumber ? "number" : ""} aria-sort={sorted} title={column.help && t(column.help)}>
      {column.key === null ? (
        t(column.text)
      ) : (
        <button type="button" class="sort" onClick={() => order(column.key as string)}>
          {t(column.text)}
          <span aria-hidden="true">{is ? (sort.value.order === "asc" ? " ↑" : " ↓") : ""}</span>
        </button>
      )}
    </th>
  );
}

/** By minute, without the open one: its clicks and impressions do not arrive together. */
export function settledRatios(shown: number[], clicked: number[]): (number | null)[] {
  return shown.map((all, at) => {
    const part = clicked[at] ?? 0;
    return all > 0 && part <= all && at < shown.length - 1 ? part / all : null;
  });
}

/** Without the minutes before the first one that has a value, but never shorter than a few. */
function trimmed(values: (number | null)[]): (number | null)[] {
  const first = values.findIndex((value) => value !== null);
  return values.slice(Math.max(0, Math.min(first, values.length - LEAST_MINUTES)));
}

function Row({ line }: { line: CampaignLine }) {
  const { figures: own, spark } = line;
  const ratios = trimmed(settledRatios(spark.impressions, spark.clicks));
  const newest = ratios.findLast((value) => value !== null) ?? null;
  return (
    <tr role="row">
      <th scope="row" role="rowheader">
        <a href={`#/campaigns/${encodeURIComponent(line.campaign_id)}`}>{line.name || line.campaign_id}</a>
        {line.firing_alerts > 0 && (
          <span class="badge bad" title={t("alerts")}>
            {line.firing_alerts} {t("state_firing")}
          </span>
        )}
        <small class="muted block">{line.campaign_id}</small>
      </th>
      <td role="cell" class="number" data-label={t("ctr")}>
        <Ratio share={own.ctr} />
      </td>
      <td role="cell" class="number" data-label={t("cvr")}>
        <Ratio share={own.cvr} />
      </td>
      <td role="cell" class="number" data-label={t("impressions")}>
        {count(own.impressions)}
      </td>
      <td role="cell" class="number" data-label={t("clicks")}>
        {count(own.clicks)}
      </td>
      <td role="cell" class="number" data-label={t("spend")}>
        <Spend figures={own} currency={line.currency} />
      </td>
      <td role="cell" class="number" data-label={t("invalid")}>
        {percent(own.invalid.click_share?.value)}
      </td>
      <td role="cell" data-label={t("pacing")}>
        <Pace pace={line.pacing} currency={line.currency} />
      </td>
      <td role="cell" data-label={t("spark")}>
        <Sparkline values={ratios} label={`${t("spark")}: ${percent(newest)}`} />
      </td>
    </tr>
  );
}

function Search() {
  const [text, setText] = useState(search.value);
  useEffect(() => {
    const later = setTimeout(() => {
      if (search.value !== text) cursors.value = [];
      search.value = text;
    }, TYPING_MS);
    return () => clearTimeout(later);
  }, [text]);
  return (
    <label>
      {t("search")}
      <input
        type="search"
        value={text}
        maxLength={100}
        placeholder={t("search_hint")}
        onInput={(event) => setText(event.currentTarget.value)}
      />
    </label>
  );
}

function Toolbar() {
  return (
    <form class="toolbar" role="search" onSubmit={(event) => event.preventDefault()}>
      <Search />
      <label>
        {t("window")}
        <select
          value={listWindow.value}
          onChange={(event) => {
            listWindow.value = event.currentTarget.value;
            cursors.value = [];
          }}
        >
          {WINDOWS.map((name) => (
            <option key={name} value={name}>
              {t(`window_${name}`)}
            </option>
          ))}
        </select>
      </label>
    </form>
  );
}

/** The page with the newest figures that the stream has told: its order stays until it is loaded again. */
function merged(page: CampaignPage): CampaignPage {
  const told = figures.value;
  if (told === null || told.window !== page.window || told.as_of < page.as_of) return page;
  const newest = new Map(told.campaigns.map((line) => [line.campaign_id, line]));
  return { ...page, as_of: told.as_of, campaigns: page.campaigns.map((line) => newest.get(line.campaign_id) ?? line) };
}

function Pages({ page }: { page: CampaignPage }) {
  if (cursors.value.length === 0 && page.next_cursor === null) return null;
  return (
    <nav class="pages" aria-label={t("page")}>
      <button type="button" disabled={cursors.value.length === 0} onClick={() => (cursors.value = cursors.value.slice(0, -1))}>
        {t("previous")}
      </button>
      <span>
        {t("page")} {cursors.value.length + 1}
      </span>
      <button
        type="button"
        disabled={page.next_cursor === null}
        onClick={() => (cursors.value = [...cursors.value, page.next_cursor as string])}
      >
        {t("next")}
      </button>
    </nav>
  );
}

export function Campaigns() {
  const query = {
    window: listWindow.value,
    search: search.value,
    sort: sort.value.key,
    order: sort.value.order,
    cursor: cursors.value.at(-1) ?? null,
  };
  const { data, failure } = useLoaded(() => get<CampaignPage>("/campaigns", query), JSON.stringify(query), REFRESH_MS);
  const page = data && merged(data);
  return (
    <>
      <h1 tabIndex={-1}>{t("campaigns")}</h1>
      <Toolbar />
      {page === null || page.campaigns.length === 0 ? (
        <Loading failure={failure} isEmpty={page !== null} />
      ) : (
        <>
          <table class="cards" role="table">
            <caption class="muted">
              {t(`window_${page.window as (typeof WINDOWS)[number]}`)} · {t("as_of")} {time(page.as_of, "UTC")} (UTC)
            </caption>
            <thead role="rowgroup">
              <tr role="row">
                {COLUMNS.map((column) => (
                  <Heading key={column.text} column={column} />
                ))}
              </tr>
            </thead>
            <tbody role="rowgroup">
              {page.campaigns.map((line) => (
                <Row key={line.campaign_id} line={line} />
              ))}
            </tbody>
          </table>
          <Pages page={page} />
        </>
      )}
    </>
  );
}
