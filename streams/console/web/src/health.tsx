// The pipeline's health, and the ledger with its balance.
import { get, type Health as State, type Ledger } from "./api";
import { count, span, time } from "./format";
import { t } from "./i18n";
import { useLoaded } from "./loaded";
import { Loading, Wide } from "./parts";
import { health as told } from "./state";

const REFRESH_MS = 4_000;
const ENTRIES = ["consumed", "counted", "duplicate", "late", "rejected", "lost", "no_record", "balance"] as const;
type Sums = Record<(typeof ENTRIES)[number], number>;

function Tiles({ state }: { state: State }) {
  const tiles: [string, string, string][] = [
    [t("status"), state.is_ready ? t("ready") : t("not_ready"), state.is_ready ? "good" : "bad"],
    [t("sink"), state.is_sink_up ? t("sink_up") : t("sink_down"), state.is_sink_up ? "good" : "bad"],
    [t("lag"), count(state.lag_records), ""],
    [t("dirty"), count(state.dirty_rows), ""],
    [t("latency"), `${span(state.visible_p50_ms)} (p99 ${span(state.visible_p99_ms)})`, ""],
    [t("newest_event"), time(state.newest_event, "UTC"), ""],
    [t("partitions"), state.partitions.join(", ") || "–", ""],
    [t("version"), state.version, ""],
  ];
  return (
    <div class="tiles">
      {tiles.map(([name, value, tone]) => (
        <div class="tile" key={name}>
          <span class="muted">{name}</span>
          <strong class={tone && `tone ${tone}`}>{value}</strong>
        </div>
      ))}
    </div>
  );
}

function sums(ledger: Ledger): Map<string, Sums> {
  const found = new Map<string, Sums>();
  for (const line of ledger.lines) {
    const own = found.get(line.input) ?? { consumed: 0, counted: 0, duplicate: 0, late: 0, rejected: 0, lost: 0, no_record: 0, balance: 0 };
    for (const name of ENTRIES) own[name] += name === "lost" ? line.lost_retention : line[name];
    found.set(line.input, own);
  }
  return found;
}

function LedgerPart({ ledger }: { ledger: Ledger }) {
  return (
    <section aria-labelledby="ledger">
      <h2 id="ledger">
        {t("ledger")}{" "}
        <span class={`badge ${ledger.is_balanced ? "good" : "bad"}`}>{t(ledger.is_balanced ? "balanced" : "unbalanced")}</span>
      </h2>
      <p class="muted">{t("ledger_help")}</p>
      <Wide label={t("ledger")}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t("input")}</th>
              {ENTRIES.map((name) => (
                <th key={name} scope="col" class="number">
                  {t(name)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {[...sums(ledger)].map(([input, own]) => (
              <tr key={input}>
                <th scope="row">{input}</th>
                {ENTRIES.map((name) => (
                  <td key={name} class="number">
                    {count(own[name])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </section>
  );
}

export function Health() {
  const own = useLoaded(() => get<State>("/health"), "health", REFRESH_MS);
  const ledger = useLoaded(() => get<Ledger>("/ledger"), "ledger", REFRESH_MS);
  const state = told.value ?? own.data;
  return (
    <>
      <h1 tabIndex={-1}>{t("health")}</h1>
      {state === null ? <Loading failure={own.failure} /> : <Tiles state={state} />}
      {state !== null && state.reasons.length > 0 && (
        <ul class="trouble">
          {state.reasons.map((reason) => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
      )}
      {ledger.data === null ? <Loading failure={ledger.failure} /> : <LedgerPart ledger={ledger.data} />}
    </>
  );
}
