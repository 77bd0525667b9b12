// The API: types made from its description, requests, and the stream of live updates.
import type { components } from "./api.d";

type Schemas = components["schemas"];
export type Share = Schemas["Share"];
export type Figures = Schemas["Figures"];
export type InvalidFigures = Schemas["InvalidFigures"];
export type CampaignLine = Schemas["CampaignLine"];
export type CampaignPage = Schemas["CampaignPage"];
export type Campaign = Schemas["Campaign"];
export type Days = Schemas["Days"];
export type Minutes = Schemas["Minutes"];
export type Pacing = Schemas["Pacing"];
export type PaceLine = Schemas["PaceLine"];
export type Alert = Schemas["Alert"];
export type AlertPage = Schemas["AlertPage"];
export type InvalidTraffic = Schemas["InvalidTraffic"];
export type FlagPage = Schemas["FlagPage"];
export type Ledger = Schemas["Ledger"];
export type Health = Schemas["Health"];
export type Session = Schemas["Session"];

const BASE = "/api/v1";

export class Failure extends Error {
  constructor(readonly status: number) {
    super(`status ${status}`);
  }
}

type Query = Record<string, string | number | null | undefined>;

export async function get<T>(path: string, query: Query = {}): Promise<T> {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value != null && value !== "") parameters.set(name, `${value}`);
  const suffix = parameters.size ? `?${parameters}` : "";
  return answered<T>(await fetch(BASE + path + suffix, { headers: { Accept: "application/json" } }));
}

export async function logIn(token: string): Promise<Session> {
  const headers = { "Content-Type": "application/json" };
  return answered<Session>(await fetch(`${BASE}/session`, { method: "POST", headers, body: JSON.stringify({ token }) }));
}

export async function logOut(): Promise<void> {
  await fetch(`${BASE}/session`, { method: "DELETE" });
}

async function answered<T>(response: Response): Promise<T> {
  if (!response.ok) throw new Failure(response.status);
  return (await response.json()) as T;
}

export function campaignPath(id: string, part = ""): string {
  return `/campaigns/${encodeURIComponent(id)}${part}`;
}

export function stream(window: string): EventSource {
  return new EventSource(`${BASE}/events?window=${encodeURIComponent(window)}`);
}
