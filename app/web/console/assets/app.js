// The frame around the pages: login, navigation, notices, dialogs, and the sign that what is shown is old.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get, keepToken, token } from "./api.js";
import { duration, moment } from "./format.js";
import { oldSince, useNow } from "./live.js";
import { routes } from "./pages/index.js";
import { href, match, useLocation } from "./router.js";
import { currentSession, setSession } from "./session.js";
import { Dialogs, Empty, Field, Form, Notices, Page, closeDialogs, mount } from "./ui.js";

const THEME = "vault-stream-theme";
const THEMES = [["", "system"], ["light", "light"], ["dark", "dark"]];

const useTheme = () => {
  const [theme, set] = useState(sessionStorage.getItem(THEME) || "");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    if (theme) sessionStorage.setItem(THEME, theme);
    else sessionStorage.removeItem(THEME);
  }, [theme]);
  return [theme, set];
};

function Theme() {
  const [theme, set] = useTheme();
  return html`<label class="theme">Colours
    <select value=${theme} onChange=${(event) => set(event.target.value)}>
      ${THEMES.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === theme}>${text}</option>`)}
    </select>
  </label>`;
}

/** Asks for a token until the API takes it. */
function Login({ onSession, wasRefused }) {
  const [value, set] = useState("");
  const [tried, setTried] = useState(false);
  const submit = async () => {
    setTried(true);
    keepToken(value.trim());
    try {
      onSession(await get("/v1/session"));
    } catch (error) {
      keepToken(null);
      throw error;
    }
  };
  return html`<main id="main" class="login" tabindex="-1">
    <p class="brand">vault-stream</p>
    <${Page} title="Log in" lead="With a token of this deployment. A viewer's token shows everything and changes nothing.">
      ${wasRefused && !tried && html`<p class="problem" role="alert">The token is not taken any more. Give another one.</p>`}
      <${Form} submit=${submit} action="Log in">
        ${(error) => html`<${Field} label="Token" error=${error && error.status === 401 ? "This token is not known here." : ""}
          hint="Kept in this tab until it is closed, and nowhere else.">
          ${(tied) => html`<input type="password" autocomplete="off" spellcheck=${false} value=${value} onInput=${(event) => set(event.target.value)} ...${tied} />`}
        <//>`}
      <//>
    <//>
  </main>`;
}

/** Says since when nothing has come, while that is so. */
function Old() {
  const now = useNow();
  const since = oldSince(now);
  return html`<div role="alert" class=${since ? "old" : "hidden"}>
    ${since && html`<strong>This is old.</strong> The last answer came at ${moment(since)}. Asking on.`}
    ${since && html` <span aria-hidden="true">(${duration((now - since) / 1000)} ago)</span>`}
  </div>`;
}

function Navigation({ path }) {
  const shown = routes.filter((route) => route.nav);
  const current = (route) => path === route.path || (route.path !== "/" && path.startsWith(`${route.path}/`));
  return html`<nav class="main-nav" aria-label="Pages of the console">
    <ul>${shown.map((route) => html`<li key=${route.path}><a href=${href(route.path)} aria-current=${current(route) ? "page" : undefined}>${route.nav}</a></li>`)}</ul>
  </nav>`;
}

function Body({ location }) {
  const found = match(routes, location.path);
  const first = useRef(true);
  useEffect(() => {
    // A screen reader hears the title of the page that came, and Tab goes on from there.
    if (first.current) first.current = false;
    else {
      closeDialogs();
      document.getElementById("title")?.focus();
      window.scrollTo(0, 0);
    }
  }, [location.path]);
  if (!found) {
    return html`<${Page} title="There is no such page"><${Empty} title="The address leads nowhere."><p><a href="#/">Go to the overview</a></p><//><//>`;
  }
  return html`<${found.route.page} key=${location.path} params=${found.params} query=${found.query} location=${location} />`;
}

function Shell({ session, onLogout }) {
  const location = useLocation();
  const skip = (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <a class="brand" href="#/">vault-stream</a>
      <${Navigation} path=${location.path} />
      <div class="who">
        <span>${session.name} <span class="muted">(${session.role})</span></span>
        <${Theme} />
        ${token() && html`<button type="button" onClick=${onLogout}>Log out</button>`}
      </div>
    </header>
    <${Old} />
    <main id="main" tabindex="-1"><${Body} location=${location} /></main>
  `;
}

function App() {
  const [state, set] = useState({ session: null, known: false, refused: false, error: null });
  const start = (session) => {
    setSession(session);
    set({ session, known: true, refused: false, error: null });
  };
  useLayoutEffect(() => {
    let timer = null;
    const ask = async () => {
      try {
        start(await get("/v1/session"));
      } catch (error) {
        if (error.status === 401) set({ session: null, known: true, refused: Boolean(token()), error: null });
        else {
          set({ session: null, known: false, refused: false, error });
          timer = setTimeout(ask, 2000);
        }
      }
    };
    ask();
    const lost = () => {
      if (!currentSession()) return;
      setSession(null);
      closeDialogs({ all: true });
      keepToken(null);
      set({ session: null, known: true, refused: true, error: null });
    };
    window.addEventListener("unauthorized", lost);
    return () => {
      clearTimeout(timer);
      window.removeEventListener("unauthorized", lost);
    };
  }, []);
  const logout = () => {
    keepToken(null);
    setSession(null);
    set({ session: null, known: true, refused: false, error: null });
  };
  if (!state.known) {
    return html`<main id="main"><h1>vault-stream</h1><p role="status">${state.error ? `${state.error.message} Asking again.` : "Loading…"}</p></main>`;
  }
  return html`
    ${state.session ? html`<${Shell} session=${state.session} onLogout=${logout} />` : html`<${Login} onSession=${start} wasRefused=${state.refused} />`}
    <${Notices} />
    <${Dialogs} />
  `;
}

document.documentElement.dataset.theme = sessionStorage.getItem(THEME) || "";
mount(App, document.getElementById("console"));
