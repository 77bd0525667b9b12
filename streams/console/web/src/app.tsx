// The page: its frame, the views, and the login.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Alerts } from "./alerts";
import { Failure, logIn, logOut, type Session } from "./api";
import { Campaign } from "./campaign";
import { Campaigns } from "./campaigns";
import { Health } from "./health";
import { type Key, type Language, language, said, setLanguage, t } from "./i18n";
import { dismiss, link, newAlerts, type Route, route, session, type Theme, theme, whoIsThere } from "./state";
import "./style.css";

function Frame({ who }: { who: Session }) {
  const here = route.value;
  const main = useRef<HTMLElement>(null);
  const place = `${here.view}/${here.id}`;
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${here.view === "campaign" ? here.id : t(here.view)} · ${t("title")}`;
    if (!isFirst.current) main.current?.querySelector("h1")?.focus();
    isFirst.current = false;
  }, [place, language.value]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => skip(event, main.current)}>
        {t("skip")}
      </a>
      <Header who={who} here={here} />
      {who.is_open && <p class="note">{t("open_note")}</p>}
      <main id="main" ref={main} tabIndex={-1}>
        <View here={here} />
      </main>
      <Toasts />
    </>
  );
}

/** The address names the view, so the link moves the focus without changing it. */
function skip(event: MouseEvent, main: HTMLElement | null): void {
  event.preventDefault();
  main?.focus();
}

function View({ here }: { here: Route }) {
  if (here.view === "campaign") return <Campaign key={here.id} id={here.id} />;
  if (here.view === "alerts") return <Alerts />;
  if (here.view === "health") return <Health />;
  return <Campaigns />;
}

function Header({ who, here }: { who: Session; here: Route }) {
  const views: Key[] = who.is_operator ? ["campaigns", "alerts", "health"] : ["campaigns", "alerts"];
  const current = here.view === "campaign" ? "campaigns" : here.view;
  return (
    <header>
      <a class="brand" href="#/campaigns">
        {t("title")}
      </a>
      <nav aria-label={t("navigation")}>
        {views.map((name) => (
          <a key={name} href={`#/${name}`} aria-current={name === current ? "page" : undefined}>
            {t(name)}
          </a>
        ))}
      </nav>
      <div class="tools">
        <span class={`live ${link.value}`} role="status">
          {t(link.value)}
        </span>
        <Choices />
        {!who.is_open && (
          <button type="button" onClick={() => void leave()}>
            {t("sign_out")}
          </button>
        )}
      </div>
    </header>
  );
}

async function leave(): Promise<void> {
  await logOut();
  session.value = null;
}

function Choices() {
  return (
    <>
      <label class="choice">
        <span class="hidden">{t("language")}</span>
        <select value={language.value} onChange={(event) => setLanguage(event.currentTarget.value as Language)}>
          <option value="en">English</option>
          <option value="zh">中文</option>
        </select>
      </label>
      <label class="choice">
        <span class="hidden">{t("theme")}</span>
        <select value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
          <option value="auto">{t("theme_auto")}</option>
          <option value="light">{t("theme_light")}</option>
          <option value="dark">{t("theme_dark")}</option>
        </select>
      </label>
    </>
  );
}

function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {newAlerts.value.map((alert) => (
        <div class="toast" key={alert.alert_id}>
          <span>
            <strong>
              {t("new_alert")}: {said("kind", alert.kind)}
            </strong>{" "}
            {language.value === "zh" && alert.text_zh ? alert.text_zh : alert.text_en}
          </span>
          <button type="button" aria-label="×" onClick={() => dismiss(alert.alert_id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}

function Login() {
  const [token, setToken] = useState("");
  const [trouble, setTrouble] = useState<Key | null>(null);
  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    try {
      session.value = await logIn(token);
    } catch (error) {
      setTrouble(error instanceof Failure && error.status === 429 ? "too_many" : "token_wrong");
    }
  }
  return (
    <main class="login">
      <h1>{t("title")}</h1>
      <form onSubmit={(event) => void submit(event)}>
        <label>
          {t("token")}
          <input
            type="password"
            autocomplete="current-password"
            required
            maxLength={200}
            value={token}
            aria-describedby="token-help"
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </label>
        <small id="token-help" class="muted">
          {t("token_help")}
        </small>
        <p role="alert" class="trouble">
          {trouble && t(trouble)}
        </p>
        <button type="submit" class="primary">
          {t("sign_in")}
        </button>
      </form>
      <div class="row">
        <Choices />
      </div>
    </main>
  );
}

function App() {
  const who = session.value;
  document.documentElement.lang = language.value === "zh" ? "zh-Hans" : "en";
  if (who === "unknown") return <p class="login">{t("loading")}</p>;
  return who === null ? <Login /> : <Frame who={who} />;
}

render(<App />, document.getElementById("app") as HTMLElement);
void whoIsThere();
