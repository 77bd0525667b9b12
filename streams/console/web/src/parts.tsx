// Small pieces that several views share.
import type { ComponentChildren } from "preact";
import type { Alert, Figures, PaceLine, Share } from "./api";
import { ABSENT, interval, money, percent, span, time } from "./format";
import { language, said, t } from "./i18n";

export function Ratio({ share }: { share: Share | null }) {
  if (share === null) return <span title={t("absent")}>{ABSENT}</span>;
  return (
    <span class="ratio">
      {percent(share.value)} <small class="muted">{interval(share)}</small>
    </span>
  );
}

export function Provisional({ figures }: { figures: Figures }) {
  if (!figures.is_provisional) return null;
  return (
    <abbr class="provisional" title={t("provisional_help")}>
      {t("provisional")}
    </abbr>
  );
}

export function Spend({ figures, currency }: { figures: Figures; currency: string }) {
  return (
    <span class="nowrap">
      {money(figures.spend_micros, currency)} <Provisional figures={figures} />
    </span>
  );
}

const TONES: Record<string, string> = {
  on_pace: "good",
  behind: "good",
  ahead: "good",
  well_behind: "warn",
  well_ahead: "warn",
  far_behind: "bad",
  far_ahead: "bad",
  exhausted: "bad",
};

export function Pace({ pace, currency }: { pace: PaceLine | null; currency: string }) {
  if (pace === null) return <span class="muted">{ABSENT}</span>;
  const share = pace.budget_micros > 0 ? pace.spend_micros / pace.budget_micros : 0;
  return (
    <span class="pace">
      <span class={`badge ${TONES[pace.status] ?? "plain"}`}>{said("pace", pace.status)}</span>
      <progress
        value={Math.min(1, Math.max(0, share))}
        max={1}
        aria-label={`${money(pace.spend_micros, currency)} / ${money(pace.budget_micros, currency)}`}
      />
      <small class="muted nowrap">
        {percent(share, share < 0.1 ? 1 : 0)} · {money(pace.budget_micros, currency, true)}
      </small>
    </span>
  );
}

export function AlertLine({ alert, withCampaign = true }: { alert: Alert; withCampaign?: boolean }) {
  const text = language.value === "zh" && alert.text_zh ? alert.text_zh : alert.text_en;
  const tone = alert.state === "firing" ? "bad" : alert.state === "pending" ? "warn" : "plain";
  return (
    <li class="alert">
      <span class={`badge ${tone}`}>{said("state", alert.state)}</span>
      <div>
        <strong>{said("kind", alert.kind)}</strong>
        {withCampaign && alert.campaign_id && (
          <>
            {" · "}
            <a href={`#/campaigns/${encodeURIComponent(alert.campaign_id)}`}>{alert.campaign_name || alert.campaign_id}</a>
          </>
        )}
        <p>{text}</p>
        <small class="muted">
          {t("began")} {time(alert.began, alert.time_zone)} ({alert.time_zone})
          {alert.duration_ms !== null && ` · ${t("lasted")} ${span(alert.duration_ms)}`}
        </small>
      </div>
    </li>
  );
}

export function Loading({ failure, isEmpty }: { failure: number | null; isEmpty?: boolean }) {
  if (failure === 404) return <p role="status">{t("not_found")}</p>;
  if (failure === 403) return <p role="status">{t("operators_only")}</p>;
  if (failure !== null)
    return (
      <p role="status" class="trouble">
        {t("failed")}
      </p>
    );
  return <p role="status">{isEmpty ? t("nothing") : t("loading")}</p>;
}

/** A table that may be wider than the screen: it can be scrolled with the keyboard too. */
export function Wide({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="wide" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}
