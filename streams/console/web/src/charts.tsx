// uPlot in Preact: a chart is made anew when its look changes, and is given new data otherwise.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { language, locale, t } from "./i18n";
import { isDark } from "./state";

export type Line = {
  label: string;
  colour: "accent" | "plan" | "good" | "warn" | "muted";
  values: (number | null)[];
  dash?: boolean;
  fill?: boolean;
  scale?: string;
};
export type ChartProps = {
  label: string;
  times: number[];
  lines: Line[];
  zone: string;
  height?: number;
  range?: [number, number] | null;
  shown: (value: number) => string;
};

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--chart-${name}`).trim() || "#888";
}

function clock(seconds: number, zone: string, step: number): string {
  const day = step >= 86_400 ? ({ month: "short", day: "numeric" } as const) : {};
  const hours = step >= 86_400 ? {} : ({ hour: "2-digit", minute: "2-digit", hour12: false } as const);
  return new Intl.DateTimeFormat(locale(), { ...day, ...hours, timeZone: zone }).format(new Date(seconds * 1000));
}

const STEPS_S = [60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 2592000];

function options(props: ChartProps, width: number): uPlot.Options {
  const axis = { stroke: colour("text"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid") } };
  return {
    width,
    height: props.height ?? 220,
    legend: { show: true, live: true },
    cursor: { drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), props.zone),
    scales: { x: { range: props.range ? () => props.range as [number, number] : undefined }, y: { range: fromZero } },
    axes: [
      { ...axis, incrs: STEPS_S, values: (_, splits, __, ___, step) => splits.map((each) => clock(each, props.zone, step)) },
      { ...axis, size: 64, values: (_, splits) => splits.map(props.shown) },
    ],
    series: [
      { label: t("time"), value: (_, at) => (at == null ? "–" : clock(at, props.zone, 60)) },
      ...props.lines.map((line) => ({
        label: line.label,
        stroke: colour(line.colour),
        width: 2,
        dash: line.dash ? [6, 4] : undefined,
        fill: line.fill ? `${colour(line.colour)}22` : undefined,
        points: { show: line.values.filter((value) => value !== null).length < 3, size: 6 },
        spanGaps: true,
        value: (_: uPlot, value: number | null) => (value == null ? "–" : props.shown(value)),
      })),
    ],
  };
}

function fromZero(_: uPlot, low: number | null, high: number | null): [number, number] {
  return [Math.min(0, low ?? 0), high ? high * 1.08 : 1];
}

function data(props: { times: number[]; lines: Line[] }): uPlot.AlignedData {
  return [props.times, ...props.lines.map((line) => line.values)] as uPlot.AlignedData;
}

export function Chart(props: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const look = [isDark.value, language.value, props.zone, props.range?.join(), props.lines.map((l) => l.label).join()];
  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const made = new uPlot(options(props, host.clientWidth || 300), data(props), host);
    chart.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: host.clientWidth || 300, height: props.height ?? 220 }));
    watch.observe(host);
    return () => {
      watch.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, look);
  useEffect(() => chart.current?.setData(data(props)));
  return <div ref={place} class="chart" role="img" aria-label={props.label} />;
}

export function Sparkline(props: { values: (number | null)[]; label: string }) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const times = props.values.map((_, at) => at);
  const dark = isDark.value;
  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const made = new uPlot(
      {
        width: 120,
        height: 30,
        pxAlign: false,
        legend: { show: false },
        cursor: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false }, y: { range: fromZero } },
        series: [
          {},
          { stroke: colour("accent"), width: 1.5, fill: `${colour("accent")}22`, points: { show: false }, spanGaps: true },
        ],
      },
      [times, props.values] as uPlot.AlignedData,
      host,
    );
    chart.current = made;
    return () => {
      made.destroy();
      chart.current = null;
    };
  }, [dark]);
  useEffect(() => chart.current?.setData([times, props.values] as uPlot.AlignedData));
  return <div ref={place} class="spark" role="img" aria-label={props.label} />;
}
