// What the whole page shares: who is there, where we are, and the live updates.
import { effect, signal } from "@preact/signals";
import { type Alert, type CampaignPage, Failure, get, type Health, type Session, stream } from "./api";
import { store, stored } from "./storage";

export type Theme = "auto" | "light" | "dark";
export type Route = { view: "campaigns" | "campaign" | "alerts" | "health"; id: string };
export type Link = "live" | "polling" | "offline";

const POLL_MS = 5_000;
const SHOWN_ALERT_MS = 12_000;

export const session = signal<Session | null | "unknown">("unknown");
export const route = signal<Route>(routeOf(location.hash));
export const link = signal<Link>("offline");
export const pulse = signal(0);
export const figures = signal<CampaignPage | null>(null);
export const health = signal<Health | null>(null);
export const newAlerts = signal<Alert[]>([]);
export const listWindow = signal<string>(stored("window") ?? "day");
export const theme = signal<Theme>((stored("theme") as Theme | null) ?? "auto");
export const isDark = signal(false);

const system = matchMedia("(prefers-color-scheme: dark)");
const judge = () => (isDark.value = theme.value === "dark" || (theme.value === "auto" && system.matches));
system.addEventListener("change", judge);
effect(() => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  store("theme", theme.value === "auto" ? null : theme.value);
  judge();
});
effect(() => store("window", listWindow.value));

function routeOf(hash: string): Route {
  const [view, id] = hash.replace(/^#\/?/, "").split("/");
  if (view === "campaigns" && id) return { view: "campaign", id: decoded(id) };
  if (view === "alerts" || view === "health") return { view, id: "" };
  return { view: "campaigns", id: "" };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

addEventListener("hashchange", () => (route.value = routeOf(location.hash)));

export async function whoIsThere(): Promise<void> {
  try {
    session.value = await get<Session>("/session");
  } catch (error) {
    if (error instanceof Failure && error.status === 401) session.value = null;
    else setTimeout(() => void whoIsThere(), POLL_MS);
  }
}

// One stream for the page. While it is down, a slow pulse makes views ask again, and the browser tries to reconnect.
effect(() => {
  const who = session.value;
  if (who === null || who === "unknown") {
    link.value = "offline";
    return;
  }
  const source = stream(listWindow.value);
  const poll = setInterval(() => {
    if (link.value === "live") return;
    link.value = "polling";
    pulse.value += 1;
    if (source.readyState === EventSource.CLOSED) void whoIsThere();
  }, POLL_MS);
  source.onopen = () => (link.value = "live");
  source.onerror = () => (link.value = "polling");
  source.addEventListener("figures", (event) => {
    link.value = "live";
    figures.value = JSON.parse((event as MessageEvent<string>).data) as CampaignPage;
    pulse.value += 1;
  });
  source.addEventListener("health", (event) => {
    health.value = JSON.parse((event as MessageEvent<string>).data) as Health;
  });
  source.addEventListener("alert", (event) => {
    const alert = JSON.parse((event as MessageEvent<string>).data) as Alert;
    pulse.value += 1;
    if (alert.state !== "firing") return;
    newAlerts.value = [...newAlerts.value, alert].slice(-3);
    setTimeout(() => dismiss(alert.alert_id), SHOWN_ALERT_MS);
  });
  return () => {
    clearInterval(poll);
    source.close();
  };
});

export function dismiss(id: string): void {
  newAlerts.value = newAlerts.value.filter((alert) => alert.alert_id !== id);
}
