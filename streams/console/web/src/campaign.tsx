// One campaign: its windows, pacing curve, time series, invalid traffic, days and alerts.
import { useState } from "preact/hooks";
import {
  type AlertPage,
  type Campaign as Whole,
  campaignPath,
  type Days,
  type FlagPage,
  get,
  type InvalidTraffic,
  type Minutes,
  type Pacing,
} from "./api";
import { Chart, type Line } from "./charts";
import { count, date, money, percent, short, time } from "./format";
import { language, said, t } from "./i18n";
import { useLoaded } from "./loaded";
import { AlertLine, Loading, Pace, Ratio, Spend, Wide } from "./parts";
import { session } from "./state";
import { settledRatios, WINDOWS } from "./campaigns";

const REFRESH_MS = 4_000;
const SLOW_MS = 10_000;
const ZOOM_BELOW = 0.2;

function epoch(iso: string): number {
  return Date.parse(iso) / 1000;
}

function isOperator(): boolean {
  const who = session.value;
  return who !== null && who !== "unknown" && who.is_operator;
}

function Facts({ campaign }: { campaign: Whole }) {
  const terms = campaign.settings;
  const facts: [string, string][] = [
    [t("advertiser"), campaign.advertiser_id],
    [t("time_zone"), campaign.time_zone],
    [t("goal"), terms?.goal ?? ""],
    [t("billing"), terms?.billing_model ?? ""],
    [t("budget_day"), terms?.daily_budget_micros ? money(terms.daily_budget_micros, campaign.currency) : ""],
    [t("budget_total"), terms?.total_budget_micros ? money(terms.total_budget_micros, campaign.currency) : ""],
  ];
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

function Windows({ campaign }: { campaign: Whole }) {
  return (
    <section aria-labelledby="windows">
      <h2 id="windows">{t("windows")}</h2>
      <Wide label={t("windows")}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t("window")}</th>
              {(["impressions", "clicks", "ctr", "conversions", "cvr", "spend", "invalid"] as const).map((name) => (
                <th key={name} scope="col" class="number">
                  {t(name)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {WINDOWS.map((name) => {
              const own = campaign.windows[name];
              return (
                own && (
                  <tr key={name}>
                    <th scope="row">{t(`window_${name}`)}</th>
                    <td class="number">{count(own.impressions)}</td>
                    <td class="number">{count(own.clicks)}</td>
                    <td class="number">
                      <Ratio share={own.ctr} />
                    </td>
                    <td class="number">{count(own.conversions)}</td>
                    <td class="number">
                      <Ratio share={own.cvr} />
                    </td>
                    <td class="number">
                      <Spend figures={own} currency={campaign.currency} />
                    </td>
                    <td class="number">{percent(own.invalid.click_share?.value)}</td>
                  </tr>
                )
              );
            })}
          </tbody>
        </table>
      </Wide>
    </section>
  );
}

type Curve = { times: number[]; lines: Line[]; range: [number, number] | null };

function curve(pacing: Pacing, isWhole: boolean): Curve {
  const period = pacing.period;
  const points = pacing.points;
  const times = points.map((point) => epoch(point.minute));
  const plan: (number | null)[] = points.map((point) => point.target_micros / 1e6);
  const spent: (number | null)[] = points.map((point) => point.spend_micros / 1e6);
  const ahead: (number | null)[] = points.map(() => null);
  const last = points.at(-1);
  const end = period?.period_end ? epoch(period.period_end) : null;
  const lines = (): Line[] => [
    { label: t("plan"), colour: "plan", values: plan, dash: true },
    { label: t("spend"), colour: "accent", values: spent, fill: true },
    { label: t("forecast"), colour: "warn", values: ahead, dash: true },
  ];
  if (!isWhole || end === null || last === undefined || period?.forecast_micros == null) {
    return { times, lines: lines(), range: null };
  }
  ahead[ahead.length - 1] = last.spend_micros / 1e6;
  times.push(end);
  plan.push(null);
  spent.push(null);
  ahead.push(period.forecast_micros / 1e6);
  const begin = period.period_start ? epoch(period.period_start) : (times[0] as number);
  return { times, lines: lines(), range: [begin, end] };
}

/** How much of the period there are points of: a curve of a few minutes in a day is drawn by itself. */
function seenShare(pacing: Pacing | null): number {
  const [first, last, period] = [pacing?.points[0], pacing?.points.at(-1), pacing?.period];
  if (!first || !last || !period?.period_start || !period.period_end) return 0;
  return (epoch(last.minute) - epoch(first.minute)) / (epoch(period.period_end) - epoch(period.period_start));
}

function PacePoints({ pacing }: { pacing: Pacing }) {
  const rows = pacing.points.slice(-30).reverse();
  return (
    <details>
      <summary>{t("as_table")}</summary>
      <Wide label={t("pacing")}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t("time")}</th>
              <th scope="col" class="number">
                {t("plan")}
              </th>
              <th scope="col" class="number">
                {t("spend")}
              </th>
              <th scope="col" class="number">
                {t("forecast")}
              </th>
              {isOperator() && (
                <th scope="col" class="number">
                  {t("rate")}
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {rows.map((point) => (
              <tr key={point.minute}>
                <th scope="row">{time(point.minute, pacing.time_zone)}</th>
                <td class="number">{money(point.target_micros, pacing.currency)}</td>
                <td class="number">{money(point.spend_micros, pacing.currency)}</td>
                <td class="number">{money(point.forecast_micros, pacing.currency)}</td>
                {isOperator() && <td class="number">{percent(point.rate, 0)}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </details>
  );
}

function PacingPart({ id }: { id: string }) {
  const { data, failure } = useLoaded(() => get<Pacing>(campaignPath(id, "/pacing")), id, REFRESH_MS);
  const [choice, setChoice] = useState<boolean | null>(null);
  const period = data?.period ?? null;
  const isWhole = choice ?? seenShare(data) >= ZOOM_BELOW;
  return (
    <section aria-labelledby="pacing">
      <h2 id="pacing">{t("pacing")}</h2>
      {data === null ? (
        <Loading failure={failure} />
      ) : period === null ? (
        <p>{t("no_budget")}</p>
      ) : (
        <>
          <div class="tiles">
            <Tile name={t("status")}>
              <Pace pace={period} currency={data.currency} />
            </Tile>
            <Tile name={t("spend")}>{money(period.spend_micros, data.currency)}</Tile>
            <Tile name={t("plan")}>{money(period.target_micros, data.currency)}</Tile>
            <Tile name={t("forecast")}>{money(period.forecast_micros, data.currency)}</Tile>
            {period.exhausts_at && <Tile name={t("runs_dry")}>{time(period.exhausts_at, data.time_zone)}</Tile>}
            {period.rate !== undefined && <Tile name={t("rate")}>{percent(period.rate, 1)}</Tile>}
          </div>
          <div class="row">
            <button type="button" aria-pressed={isWhole} onClick={() => setChoice(!isWhole)}>
              {isWhole ? t("so_far") : t("whole_period")}
            </button>
            <small class="muted">
              {said("period", period.period_kind)} · {time(period.period_start, data.time_zone)} –{" "}
              {time(period.period_end, data.time_zone)} ({data.time_zone})
            </small>
          </div>
          <PaceChart pacing={data} isWhole={isWhole} />
          <PacePoints pacing={data} />
        </>
      )}
    </section>
  );
}

function PaceChart({ pacing, isWhole }: { pacing: Pacing; isWhole: boolean }) {
  const drawn = curve(pacing, isWhole);
  const period = pacing.period;
  const label = `${t("pacing")}: ${t("spend")} ${money(period?.spend_micros, pacing.currency)}, ${t("plan")} ${money(period?.target_micros, pacing.currency)}`;
  const rates = pacing.points.map((point) => point.rate ?? null);
  return (
    <>
      <Chart label={label} zone={pacing.time_zone} shown={short} {...drawn} />
      {isOperator() && (
        <Chart
          label={`${t("rate")}: ${percent(period?.rate, 0)}`}
          zone={pacing.time_zone}
          height={120}
          times={pacing.points.map((point) => epoch(point.minute))}
          lines={[{ label: t("rate"), colour: "good", values: rates }]}
          shown={(value) => percent(value, 0)}
        />
      )}
    </>
  );
}

function Tile({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div class="tile">
      <span class="muted">{name}</span>
      <strong>{children}</strong>
    </div>
  );
}

function OverTime({ id }: { id: string }) {
  const { data, failure } = useLoaded(() => get<Minutes>(campaignPath(id, "/minutes")), id, SLOW_MS);
  const points = data?.minutes ?? [];
  const times = points.map((point) => epoch(point.minute));
  const ratios = settledRatios(
    points.map((point) => point.impressions),
    points.map((point) => point.clicks),
  );
  return (
    <section aria-labelledby="series">
      <h2 id="series">{t("over_time")}</h2>
      {data === null || points.length === 0 ? (
        <Loading failure={failure} isEmpty={data !== null} />
      ) : (
        <div class="two">
          <Chart
            label={`${t("impressions")}: ${count(points.at(-1)?.impressions)}`}
            zone={data.time_zone}
            height={160}
            times={times}
            lines={[{ label: t("impressions"), colour: "accent", values: points.map((p) => p.impressions), fill: true }]}
            shown={short}
          />
          <Chart
            label={`${t("ctr")}: ${percent(ratios.findLast((each) => each !== null))}`}
            zone={data.time_zone}
            height={160}
            times={times}
            lines={[{ label: t("ctr"), colour: "good", values: ratios }]}
            shown={(value) => percent(value, 1)}
          />
        </div>
      )}
    </section>
  );
}

function Traffic({ id }: { id: string }) {
  const { data, failure } = useLoaded(() => get<InvalidTraffic>(campaignPath(id, "/invalid")), id, SLOW_MS);
  const whole = data?.windows["total"];
  return (
    <section aria-labelledby="invalid">
      <h2 id="invalid">{t("traffic")}</h2>
      {data === null || whole === undefined ? (
        <Loading failure={failure} />
      ) : (
        <>
          <Wide label={t("traffic")}>
            <table>
              <thead>
                <tr>
                  <th scope="col">{t("class")}</th>
                  {(["impressions", "clicks", "conversions"] as const).map((name) => (
                    <th key={name} scope="col" class="number">
                      {t(name)}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {(["givt", "sivt"] as const).map((name) => (
                  <tr key={name}>
                    <th scope="row">{t(name)}</th>
                    <td class="number">{count(whole[`${name}_impressions`])}</td>
                    <td class="number">{count(whole[`${name}_clicks`])}</td>
                    <td class="number">{count(whole[`${name}_conversions`])}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Wide>
          <p class="muted">
            {t("credited")}: {money(data.credited_micros, data.currency)}
          </p>
          {data.reasons.length > 0 && <Reasons reasons={data.reasons} />}
          {data.rules && data.rules.length > 0 && <Rules rules={data.rules} />}
          {isOperator() && <Flags id={id} />}
        </>
      )}
    </section>
  );
}

function Reasons({ reasons }: { reasons: InvalidTraffic["reasons"] }) {
  const lines = new Map<string, InvalidTraffic["reasons"][number]>();
  for (const each of reasons) {
    const soFar = lines.get(each.reason_class);
    lines.set(each.reason_class, {
      ...each,
      impressions: each.impressions + (soFar?.impressions ?? 0),
      clicks: each.clicks + (soFar?.clicks ?? 0),
      conversions: each.conversions + (soFar?.conversions ?? 0),
    });
  }
  return (
    <Wide label={t("reasons")}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t("reasons")}</th>
            {(["impressions", "clicks", "conversions"] as const).map((name) => (
              <th key={name} scope="col" class="number">
                {t(name)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {[...lines.values()].map((each) => (
            <tr key={each.reason_class}>
              <th scope="row">{language.value === "zh" ? each.text_zh : each.text_en}</th>
              <td class="number">{count(each.impressions)}</td>
              <td class="number">{count(each.clicks)}</td>
              <td class="number">{count(each.conversions)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}

function Rules({ rules }: { rules: NonNullable<InvalidTraffic["rules"]> }) {
  return (
    <Wide label={t("rules")}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t("rule")}</th>
            <th scope="col">{t("class")}</th>
            <th scope="col">{t("mode")}</th>
            <th scope="col">{t("state")}</th>
            <th scope="col" class="number">
              {t("flags")}
            </th>
          </tr>
        </thead>
        <tbody>
          {rules.map((each) => (
            <tr key={`${each.rule}${each.mode}${each.state}`}>
              <th scope="row">
                <code>{each.rule}</code>
              </th>
              <td>{each.invalid_class.toUpperCase()}</td>
              <td>{said("mode", each.mode)}</td>
              <td>{said("state", each.state)}</td>
              <td class="number">{count(each.flags)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}

function Flags({ id }: { id: string }) {
  const { data } = useLoaded(() => get<FlagPage>("/flags", { campaign_id: id, limit: 10 }), id, SLOW_MS);
  if (data === null || data.flags.length === 0) return null;
  return (
    <details>
      <summary>{t("newest_flags")}</summary>
      <ul class="flags">
        {data.flags.map((flag) => (
          <li key={`${flag.event}${flag.rule}${flag.decided}${flag.state}`}>
            <code>{flag.rule}</code> · {flag.input} · <code>{flag.event_id || flag.event}</code>
            <small class="muted block">{JSON.stringify(flag.evidence)}</small>
          </li>
        ))}
      </ul>
    </details>
  );
}

function DaysPart({ id }: { id: string }) {
  const { data, failure } = useLoaded(() => get<Days>(campaignPath(id, "/days")), id, SLOW_MS);
  return (
    <section aria-labelledby="days">
      <h2 id="days">{t("days")}</h2>
      {data === null || data.days.length === 0 ? (
        <Loading failure={failure} isEmpty={data !== null} />
      ) : (
        <Wide label={t("days")}>
          <table>
            <thead>
              <tr>
                <th scope="col">{t("day")}</th>
                {(["impressions", "clicks", "ctr", "conversions", "spend", "credited"] as const).map((name) => (
                  <th key={name} scope="col" class="number">
                    {t(name)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {data.days.map(({ day, figures }) => (
                <tr key={day}>
                  <th scope="row">{date(day)}</th>
                  <td class="number">{count(figures.impressions)}</td>
                  <td class="number">{count(figures.clicks)}</td>
                  <td class="number">
                    <Ratio share={figures.ctr} />
                  </td>
                  <td class="number">{count(figures.conversions)}</td>
                  <td class="number">
                    <Spend figures={figures} currency={data.currency} />
                  </td>
                  <td class="number">{money(figures.credited_micros, data.currency)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      )}
    </section>
  );
}

function OwnAlerts({ id }: { id: string }) {
  const { data, failure } = useLoaded(() => get<AlertPage>("/alerts", { campaign_id: id, limit: 10 }), id, REFRESH_MS);
  return (
    <section aria-labelledby="alerts">
      <h2 id="alerts">{t("alerts")}</h2>
      {data === null || data.alerts.length === 0 ? (
        <Loading failure={failure} isEmpty={data !== null} />
      ) : (
        <ul class="alerts">
          {data.alerts.map((alert) => (
            <AlertLine key={alert.alert_id} alert={alert} withCampaign={false} />
          ))}
        </ul>
      )}
    </section>
  );
}

export function Campaign({ id }: { id: string }) {
  const { data, failure } = useLoaded(() => get<Whole>(campaignPath(id)), id, REFRESH_MS);
  return (
    <>
      <p>
        <a href="#/campaigns">← {t("back")}</a>
      </p>
      <h1 tabIndex={-1}>{data?.name || id}</h1>
      {data === null ? (
        <Loading failure={failure} />
      ) : (
        <>
          <p class="muted">
            {id} · {t("as_of")} {time(data.as_of, data.time_zone)} ({data.time_zone})
          </p>
          <Facts campaign={data} />
          <Windows campaign={data} />
          <PacingPart id={id} />
          <OverTime id={id} />
          <Traffic id={id} />
          <OwnAlerts id={id} />
          <DaysPart id={id} />
        </>
      )}
    </>
  );
}
