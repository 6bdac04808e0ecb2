// The view as the fragment of the address, so that it can be sent on: `#/traffic?route=products`.
// `q` is the filter; other parameters belong to the page.

const listeners = new Set();

/** The page and its parameters. */
export function view() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { page: path || "overview", params: Object.fromEntries(new URLSearchParams(query)) };
}

/** The fragment of a view; parameters without a value are left out. */
export function link(page, params = {}) {
  const kept = Object.entries(params).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${page}${query ? `?${query}` : ""}`;
}

/** Goes to a page. */
export function go(page, params) {
  location.hash = link(page, params);
}

/** Changes parameters of this page without a step in the browser's history. */
export function adjust(params) {
  const { page, params: present } = view();
  history.replaceState(null, "", link(page, { ...present, ...params }));
  for (const listener of listeners) listener(view(), true);
}

/** Calls `listener(view, isAdjusted)` for each change. */
export function onView(listener) {
  listeners.add(listener);
}

addEventListener("hashchange", () => {
  // What is no view is for others, such as the code of a one-time link.
  if (location.hash && !location.hash.startsWith("#/")) return;
  for (const listener of listeners) listener(view(), false);
});
