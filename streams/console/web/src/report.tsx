// A replay's report: one page that holds its data, its script and its style, and asks no network for anything.
// Names are data: Preact writes them as text. Python puts the document below (streams/jobs/report_files.py).
import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import "./report.css";

type Ratio = { value: number; low: number; high: number; note: string };
type Counted =
  | "impressions"
  | "clicks"
  | "conversions"
  | "spend_micros"
  | "invalid_impressions"
  | "invalid_clicks"
  | "invalid_conversions"
  | "invalid_spend_micros"
  | "alerts";
type Shared = "ctr" | "cvr";
type Figures = Record<Counted, number> & Record<Shared, Ratio | null>;
type Pair = { currency: string; before: Figures; after: Figures; difference: Record<Counted | Shared, number | null> };
type Campaign = Pair & { campaign_id: string; name: string };
type Total = Pair & { campaigns: number };
type Change = { side: string; before: string; after: string; first_s: number; last_s: number; partitions: number };
type Series = { measure: string; currency: string; times_s: number[]; before: number[]; after: number[] };
type Report = {
  run: string;
  kind: string;
  other: string;
  from_s: number;
  to_s: number;
  only_campaigns: string[];
  remarks: string[];
  rules: Record<string, string[]>;
  rules_changes: Change[];
  totals: Total[];
  campaigns: Campaign[];
  campaigns_in_all: number;
  differing: number;
  step_s: number;
  series: Series[];
};

const MEASURES: [Counted | Shared, string][] = [
  ["impressions", "Impressions"],
  ["clicks", "Clicks"],
  ["conversions", "Conversions"],
  ["ctr", "CTR"],
  ["cvr", "CVR"],
  ["spend_micros", "Spend"],
  ["invalid_impressions", "Invalid impressions"],
  ["invalid_clicks", "Invalid clicks"],
  ["invalid_conversions", "Invalid conversions"],
  ["invalid_spend_micros", "Invalid spend"],
  ["alerts", "Alerts"],
];
const BARS = 12;
const report = JSON.parse(document.getElementById("data")?.textContent ?? "{}") as Report;
const whole = new Intl.NumberFormat("en");
const two = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const share = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2 });

function at(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
}

function tick(seconds: number, step: number): string {
  const text = at(seconds);
  return step >= 86_400 || text.endsWith("00:00") ? text.slice(5, 10) : text.slice(11);
}

function isMoney(name: string): boolean {
  return name.endsWith("_micros");
}

function shown(name: Counted | Shared, figures: Figures): string {
  if (name === "ctr" || name === "cvr") {
    const ratio = figures[name];
    return ratio === null ? "–" : share.format(ratio.value) + (ratio.note ? " *" : "");
  }
  return isMoney(name) ? two.format(figures[name] / 1e6) : whole.format(figures[name]);
}

function signed(name: Counted | Shared, value: number | null): string {
  if (value === null) return "–";
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±";
  const size = Math.abs(value);
  if (name === "ctr" || name === "cvr") return `${sign}${two.format(size * 100)} pt`;
  return sign + (isMoney(name) ? two.format(size / 1e6) : whole.format(size));
}

function interval(name: Counted | Shared, figures: Figures): string | undefined {
  if (name !== "ctr" && name !== "cvr") return undefined;
  const ratio = figures[name];
  if (ratio === null) return "no share over zero";
  const range = `95% interval ${share.format(ratio.low)} to ${share.format(ratio.high)}`;
  return ratio.note ? `${ratio.note}; ${range}` : range;
}

function Cell({ name, pair }: { name: Counted | Shared; pair: Pair }) {
  const value = pair.difference[name];
  const tone = value ? "changed" : "muted";
  return (
    <td class="number nowrap">
      <span title={interval(name, pair.before)}>{shown(name, pair.before)}</span>
      <span class="muted"> → </span>
      <span title={interval(name, pair.after)}>{shown(name, pair.after)}</span>
      <small class={`block ${tone}`}>{signed(name, value)}</small>
    </td>
  );
}

function Heads({ first }: { first: string[] }) {
  return (
    <thead>
      <tr>
        {first.map((label) => (
          <th scope="col" key={label}>
            {label}
          </th>
        ))}
        {MEASURES.map(([name, label]) => (
          <th scope="col" class="number" key={name}>
            {label}
          </th>
        ))}
      </tr>
    </thead>
  );
}

function Totals() {
  return (
    <section>
      <h2>Totals by currency</h2>
      <div class="wide" role="region" aria-label="Totals by currency" tabIndex={0}>
        <table>
          <Heads first={["Currency", "Campaigns"]} />
          <tbody>
            {report.totals.map((each) => (
              <tr key={each.currency}>
                <th scope="row">{each.currency || "(none named)"}</th>
                <td class="number">{whole.format(each.campaigns)}</td>
                {MEASURES.map(([name]) => (
                  <Cell key={name} name={name} pair={each} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted">Amounts of different currencies are never summed.</p>
    </section>
  );
}

function Campaigns() {
  const [text, setText] = useState("");
  const [all, setAll] = useState(report.differing === 0);
  const wanted = text.trim().toLowerCase();
  const rows = useMemo(
    () =>
      report.campaigns.filter(
        (each) =>
          (all || Object.values(each.difference).some((value) => value)) &&
          (!wanted || `${each.campaign_id} ${each.name}`.toLowerCase().includes(wanted)),
      ),
    [all, wanted],
  );
  const hidden = report.campaigns_in_all - report.campaigns.length;
  return (
    <section>
      <h2>Campaigns, the largest differences in money first</h2>
      <div class="toolbar">
        <label>
          Find
          <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <label>
          Show
          <select value={all ? "all" : "changed"} onChange={(event) => setAll(event.currentTarget.value === "all")}>
            <option value="changed">those that differ</option>
            <option value="all">all</option>
          </select>
        </label>
      </div>
      <p role="status" class="muted">
        {whole.format(rows.length)} shown; {whole.format(report.differing)} of {whole.format(report.campaigns_in_all)} differ
        {hidden > 0 && `; ${whole.format(hidden)} more are in the report as CSV or JSON only`}
      </p>
      <div class="wide tall" role="region" aria-label="Campaigns" tabIndex={0}>
        <table id="campaigns">
          <Heads first={["Campaign", "Currency"]} />
          <tbody>
            {rows.map((each) => (
              <tr key={`${each.campaign_id}/${each.currency}`}>
                <th scope="row">
                  {each.name || each.campaign_id || "(organic)"}
                  {each.name && <small class="block muted">{each.campaign_id}</small>}
                </th>
                <td>{each.currency || "–"}</td>
                {MEASURES.map(([name]) => (
                  <Cell key={name} name={name} pair={each} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted">
        Impressions, clicks, conversions and spend are valid traffic; gross is valid and invalid together. CTR is clicks /
        impressions, CVR conversions / clicks by conversion time; their 95% Wilson intervals show on pointing. A share marked *
        is above 1: its counts do not belong together. Alerts are those of the campaign, told once.
      </p>
    </section>
  );
}

function Bars({ currency }: { currency: string }) {
  const rows = report.campaigns.filter((each) => each.currency === currency && each.difference.spend_micros).slice(0, BARS);
  if (!rows.length) return null;
  const most = Math.max(...rows.map((each) => Math.abs(each.difference.spend_micros ?? 0)));
  const label = `Largest differences in spend, ${currency}`;
  return (
    <figure>
      <figcaption>{label}</figcaption>
      <ol class="bars" aria-label={label}>
        {rows.map((each) => {
          const value = each.difference.spend_micros ?? 0;
          const width = (Math.abs(value) / most) * 49;
          return (
            <li key={each.campaign_id}>
              <span class="bar-name">{each.name || each.campaign_id || "(organic)"}</span>
              <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                <line x1="50" x2="50" y1="0" y2="10" />
                <rect class={value < 0 ? "less" : "more"} x={value < 0 ? 50 - width : 50} y="1" width={width} height="8" />
              </svg>
              <span class="number">{signed("spend_micros", value)}</span>
            </li>
          );
        })}
      </ol>
    </figure>
  );
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--chart-${name}`).trim() || "#888";
}

function Plot({ series, dark }: { series: Series; dark: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const money = isMoney(series.measure);
  const title = { spend_micros: `Spend, ${series.currency}`, clicks: "Valid clicks", invalid_clicks: "Invalid clicks" };
  const label = title[series.measure as keyof typeof title] ?? series.measure;
  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const values = (line: number[]) => (money ? line.map((value) => value / 1e6) : line);
    const axis = { stroke: colour("text"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid") } };
    const says = (_: uPlot, value: number | null) => (value == null ? "–" : money ? two.format(value) : whole.format(value));
    const few = series.times_s.length < 3;
    const made = new uPlot(
      {
        width: host.clientWidth || 300,
        height: 220,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
        cursor: { drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high ? high * 1.08 : 1] } },
        axes: [
          { ...axis, values: (_, splits, __, ___, step) => splits.map((seconds) => tick(seconds, step)) },
          { ...axis, size: 64, values: (_, splits) => splits.map((value) => compact.format(value)) },
        ],
        series: [
          { label: "UTC", value: (_, seconds) => (seconds == null ? "–" : at(seconds)) },
          { label: report.other, stroke: colour("plan"), width: 2, dash: [6, 4], value: says, points: { show: few } },
          { label: report.run, stroke: colour("accent"), width: 2, value: says, points: { show: few } },
        ],
      },
      [series.times_s, values(series.before), values(series.after)],
      host,
    );
    const watch = new ResizeObserver(() => made.setSize({ width: host.clientWidth || 300, height: 220 }));
    watch.observe(host);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [dark]);
  return (
    <figure>
      <figcaption>{label}</figcaption>
      <div ref={place} class="chart" role="img" aria-label={`${label} by time: ${report.other} dashed, ${report.run} solid`} />
    </figure>
  );
}

function Plots() {
  const system = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [dark, setDark] = useState(system.matches);
  useEffect(() => {
    const hear = () => setDark(system.matches);
    system.addEventListener("change", hear);
    return () => system.removeEventListener("change", hear);
  }, []);
  const drawn = report.series.filter((each) => each.times_s.length);
  const step = report.step_s % 3600 ? `${report.step_s / 60} min` : `${report.step_s / 3600} h`;
  return (
    <section>
      <h2>Plots</h2>
      <p class="muted">
        By when events happened, {step} each, UTC. Dashed: {report.other}. Solid: {report.run}.
      </p>
      <div class="two plots">
        {drawn.map((each) => (
          <Plot key={`${each.measure}/${each.currency}`} series={each} dark={dark} />
        ))}
        {report.totals.map((each) => each.currency && <Bars key={each.currency} currency={each.currency} />)}
      </div>
    </section>
  );
}

function Rules() {
  const sides = Object.entries(report.rules);
  return (
    <section>
      <h2>Rules</h2>
      <dl class="facts">
        {sides.map(([side, prints]) => (
          <div key={side}>
            <dt>{side}</dt>
            <dd>{prints.join(" → ") || "no rows"}</dd>
          </div>
        ))}
      </dl>
      {report.rules_changes.length > 0 && (
        <div class="wide" role="region" aria-label="Changes of rules" tabIndex={0}>
          <table id="rules">
            <caption>Changes of rules within the range: figures before and after them are not of one kind.</caption>
            <thead>
              <tr>
                {["Side", "Rules before", "Rules after", "From (UTC)", "In all partitions by", "Partitions"].map((label) => (
                  <th scope="col" key={label}>
                    {label}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {report.rules_changes.map((each, place) => (
                <tr key={place}>
                  <th scope="row">{each.side}</th>
                  <td>
                    <code>{each.before}</code>
                  </td>
                  <td>
                    <code>{each.after}</code>
                  </td>
                  <td class="nowrap">{at(each.first_s)}</td>
                  <td class="nowrap">{at(each.last_s)}</td>
                  <td class="number">{each.partitions}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Page() {
  const facts: [string, string][] = [
    ["Run", report.run],
    ["Kind", report.kind === "what_if" ? "what-if: other rules or settings" : "identical: rules and settings as they were"],
    ["Beside", report.other],
    ["Counted from (UTC)", at(report.from_s)],
    ["To", at(report.to_s)],
    ["Campaigns", report.only_campaigns.length ? `only ${report.only_campaigns.join(", ")}` : "all"],
  ];
  return (
    <main>
      <h1>
        {report.run} beside {report.other}
      </h1>
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {report.remarks.map((remark) => (
        <p class="note" role="note" key={remark}>
          Mind: {remark}.
        </p>
      ))}
      {report.rules_changes.length > 0 && (
        <p class="note" role="note">
          The rules changed within this range: see Rules, at the end.
        </p>
      )}
      <Totals />
      <Plots />
      <Campaigns />
      <Rules />
    </main>
  );
}

const host = document.getElementById("report");
if (host) render(<Page />, host);
