// The feed of alerts, the latest change first.
import { useState } from "preact/hooks";
import { type AlertPage, get } from "./api";
import { said, t } from "./i18n";
import { useLoaded } from "./loaded";
import { AlertLine, Loading } from "./parts";

const REFRESH_MS = 4_000;
const STATES = ["", "firing", "pending", "resolved"];
const PAGE = 50;
const MOST = 200;

export function Alerts() {
  const [state, setState] = useState("");
  const [limit, setLimit] = useState(PAGE);
  const query = { state, limit };
  const { data, failure } = useLoaded(() => get<AlertPage>("/alerts", query), JSON.stringify(query), REFRESH_MS);
  return (
    <>
      <h1 tabIndex={-1}>{t("alerts")}</h1>
      <form class="toolbar" onSubmit={(event) => event.preventDefault()}>
        <label>
          {t("state")}
          <select value={state} onChange={(event) => setState(event.currentTarget.value)}>
            {STATES.map((name) => (
              <option key={name} value={name}>
                {said("state", name || "all")}
              </option>
            ))}
          </select>
        </label>
      </form>
      {data === null || data.alerts.length === 0 ? (
        <Loading failure={failure} isEmpty={data !== null} />
      ) : (
        <>
          <ul class="alerts">
            {data.alerts.map((alert) => (
              <AlertLine key={alert.alert_id} alert={alert} />
            ))}
          </ul>
          {data.next_cursor !== null && limit < MOST && (
            <button type="button" onClick={() => setLimit(MOST)}>
              {t("more")}
            </button>
          )}
        </>
      )}
    </>
  );
}
