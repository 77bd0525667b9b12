// Numbers, money, ratios and times as people read them, in the language that is chosen.
import type { Share } from "./api";
import { locale } from "./i18n";

export const ABSENT = "–";

export function count(value: number | null | undefined): string {
  return value == null ? ABSENT : new Intl.NumberFormat(locale()).format(value);
}

export function short(value: number): string {
  return new Intl.NumberFormat(locale(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function money(micros: number | null | undefined, currency: string, isShort = false): string {
  if (micros == null) return ABSENT;
  const amount = micros / 1e6;
  const compact: Intl.NumberFormatOptions = isShort ? { notation: "compact", maximumFractionDigits: 1 } : {};
  try {
    return new Intl.NumberFormat(locale(), {
      style: "currency",
      currency,
      currencyDisplay: "symbol",
      ...compact,
    }).format(amount);
  } catch {
    const plain = new Intl.NumberFormat(locale(), isShort ? compact : { maximumFractionDigits: 2 }).format(amount);
    return currency ? `${plain} ${currency}` : plain;
  }
}

export function percent(value: number | null | undefined, digits = 2): string {
  if (value == null) return ABSENT;
  const options = { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits } as const;
  return new Intl.NumberFormat(locale(), options).format(value);
}

export function interval(share: Share | null): string {
  return share === null ? "" : `${percent(share.low)}–${percent(share.high)}`;
}

export function time(iso: string | null | undefined, zone: string, withDay = true): string {
  if (!iso) return ABSENT;
  const day = withDay ? ({ month: "short", day: "numeric" } as const) : {};
  const options = { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false } as const;
  try {
    return new Intl.DateTimeFormat(locale(), { ...options, timeZone: zone }).format(new Date(iso));
  } catch {
    return new Intl.DateTimeFormat(locale(), { ...options, timeZone: "UTC" }).format(new Date(iso));
  }
}

export function date(iso: string): string {
  const options = { month: "short", day: "numeric", weekday: "short", timeZone: "UTC" } as const;
  return new Intl.DateTimeFormat(locale(), options).format(new Date(`${iso}T00:00:00Z`));
}

export function span(ms: number | null): string {
  if (ms === null) return ABSENT;
  const units: [string, number][] = [["day", 864e5], ["hour", 36e5], ["minute", 6e4], ["second", 1e3]];
  for (const [unit, size] of units) {
    if (ms >= size || unit === "second") {
      const options = { style: "unit", unit, maximumFractionDigits: 1 } as const;
      return new Intl.NumberFormat(locale(), options).format(ms / size);
    }
  }
  return ABSENT;
}
