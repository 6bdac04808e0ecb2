// The shell: who is here, the head with the live state, the pages, and what the keys do.

import * as api from "./api.js";
import { fill, h, say, set } from "./dom.js";
import { span } from "./format.js";
import { ALL, recent } from "./history.js";
import * as keys from "./keys.js";
import { live } from "./live.js";
import { showLogIn, takeCode } from "./login.js";
import { PAGES } from "./pages/index.js";
import * as router from "./router.js";
import * as theme from "./theme.js";

const part = (id) => document.getElementById(id);
const STATES = {
  live: ["good", "● live"], connecting: ["", "○ connecting"], lost: ["poor", "✖ lost"],
  paused: ["watch", "▲ paused"], hidden: ["", "○ resting"],
};

let me = null;
let open = null;
let overview = null;
let present = new AbortController();

const search = h("input", {
  type: "search", id: "search", placeholder: "/ filter", autocomplete: "off", spellcheck: "false",
  "aria-label": "Filter the tables of this page",
  on: {
    input: () => router.adjust({ q: search.value }),
    keydown: (event) => event.key === "Escape" && search.blur(),
  },
});

/** Says something to those who do not see it happen. */
function announce(text) {
  say(part("said"), text);
}

function head() {
  const state = h("button", { type: "button", class: "live-state", on: { click: pause } });
  const show = () => {
    const [level, words] = STATES[live.state];
    say(state, words);
    set(state, "class", `live-state state ${level}`);
    const verb = live.isPaused ? "go on" : "pause";
    set(state, "aria-label", `${words.slice(2)}: ${verb}`);
    document.body.dataset.live = live.state;
    const banner = part("banner");
    set(banner, "hidden", live.state !== "lost");
    say(banner, live.state === "lost"
      ? `▲ Not live: ${live.why}. The numbers below are the last ones; trying again.` : "");
  };
  live.addEventListener("state", show, { signal: present.signal });
  const up = h("span", {});
  const node = h("span", {}, me.node ?? "");
  const version = h("span", {}, me.version ?? "");
  live.on("overview", (told) => {
    say(node, told.node);
    say(version, told.version);
    say(up, `up ${span(told.up_s)}`);
  }, present.signal);
  fill(part("top"),
    h("a", { class: "brand", href: "#/overview" }, "Portcullis"),
    h("span", { class: "facts quiet" }, node, version, up),
    state, h("span", { class: "grow" }), search, theme.control(),
    h("span", { class: "quiet role" }, me.role === "operate" ? "operator" : "read only"),
    me.session && h("button", { type: "button", class: "small", on: { click: api.logOut } },
      "Log out"),
    h("button", {
      type: "button", class: "small", "aria-label": "Help: keys", on: { click: keys.help },
    }, "?"));
  show();
}

function pause() {
  live.pause(!live.isPaused);
  announce(live.isPaused ? "Paused" : "Live again");
}

function showNav(shown) {
  fill(part("nav"), PAGES.map((page) => h("a", {
    href: router.link(page.path), "aria-current": page === shown ? "page" : null,
  }, page.title)));
}

/** Leaves the page that is open and shows another. */
function turnTo({ page: path, params }, isAdjusted) {
  if (!me) return;
  const page = PAGES.find((it) => it.path === path) ?? PAGES[0];
  if (search.value !== (params.q ?? "") && document.activeElement !== search) {
    search.value = params.q ?? "";
  }
  if (open?.page === page) {
    open.onView?.(params);
    return;
  }
  if (isAdjusted) return;
  open?.leaving.abort();
  const leaving = new AbortController();
  const notice = h("p", { class: "notice", role: "status", hidden: true });
  // What is asked again and again, and has failed: what others are told does not take it away.
  const failures = new Map();
  const tell = () => {
    const [message] = failures.values();
    if (message) say(notice, `▲ ${message}`);
    set(notice, "hidden", !message);
  };
  const context = {
    me, api, live, params, announce, signal: leaving.signal,
    canOperate: me.role === "operate",
    /** Calls `look` now and each so many seconds while somebody looks. */
    every(seconds, look) {
      const run = async () => {
        if (document.hidden || live.isPaused) return;
        try {
          await look(leaving.signal);
          failures.delete(run);
        } catch (error) {
          if (leaving.signal.aborted) return;
          failures.set(run, error.message);
        }
        tell();
      };
      const timer = setInterval(run, seconds * 1000);
      leaving.signal.addEventListener("abort", () => clearInterval(timer));
      run();
    },
    /** Hears of each `GET /v1/overview`, the last one at once. */
    onOverview(listener) {
      if (overview) listener(overview);
      live.on("overview", listener, leaving.signal);
    },
  };
  context.every(10, async (signal) => {
    overview = await api.get("/v1/overview", {}, signal);
    live.dispatchEvent(new CustomEvent("overview", { detail: overview }));
  });
  const isFirst = !open;
  const { node, onView } = page.render(context);
  open = { page, leaving, onView };
  showNav(page);
  document.title = `${page.title} · ${me.node ?? "gateway"} · Portcullis`;
  const title = h("h1", { class: "unseen", tabindex: "-1" }, page.title);
  fill(part("main"), title, notice, node);
  onView?.(params);
  scrollTo(0, 0);
  if (!isFirst) title.focus();
}

async function enter() {
  try {
    me = await api.get("/v1/me");
  } catch (error) {
    leave(error.status === 401 ? undefined : error.message);
    return;
  }
  open = null;
  for (const id of ["top", "nav"]) set(part(id), "hidden", null);
  head();
  live.start();
  remember();
  turnTo(router.view());
}

/** Fetches what the gateway remembers, so that charts neither begin empty nor leave a gap. */
async function remember() {
  recent.forget();
  try {
    recent.seed(ALL, await api.get("/v1/series", { window: "5m" }));
    live.dispatchEvent(new Event("drawn"));
  } catch {
    // The charts then fill up by themselves.
  }
}

function leave(why) {
  me = null;
  overview = null;
  present.abort();
  present = new AbortController();
  live.stop();
  open?.leaving.abort();
  open = null;
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  for (const id of ["top", "nav", "banner"]) set(part(id), "hidden", true);
  showLogIn(part("main"), enter, why);
}

async function begin() {
  api.whenEnded(() => me && leave("Your session has ended: log in again."));
  live.on("tick", (tick) => {
    if (recent.push(tick)) live.dispatchEvent(new Event("drawn"));
  });
  let wasLost = false;
  live.on("state", (state) => {
    if (state === "live" && wasLost) remember();
    wasLost = state === "lost" || (wasLost && state === "connecting");
  });
  router.onView(turnTo);
  keys.listen({
    "/": { name: "filter", act: () => search.focus() },
    p: { name: "pause, go on", act: () => me && pause() },
    t: { name: "theme", act: () => announce(`Theme: ${theme.next()}`) },
  }, PAGES.map(({ key, title, path }) => ({ key, title, go: () => router.go(path) })));
  const code = takeCode();
  if (code) {
    try {
      await api.logIn({ code });
    } catch (error) {
      leave(error.message);
      return;
    }
  }
  enter();
}

// The fragment is the view; the link past the head must not change it.
part("skip").addEventListener("click", (event) => {
  event.preventDefault();
  part("main").focus();
});
// A one-time link that is opened in this tab changes the fragment alone.
addEventListener("hashchange", () => location.hash.startsWith("#code=") && location.reload());
begin();
