// The admin API. The session is in this tab's storage and nowhere else: a cookie would be sent by
// every other page of this host, on whatever port.

const NAME = "portcullis.session";

/** What the API answered in place of what was asked for. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.code = (problem.type ?? "").replace("urn:portcullis:problem:", "");
  }
}

let onEnd = () => {};

/** What happens when the session has ended. */
export function whenEnded(action) {
  onEnd = action;
}

/** The headers that say who asks. */
export function credentials() {
  const session = sessionStorage.getItem(NAME);
  return session ? { authorization: `Bearer ${session}` } : {};
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: response.statusText };
  }
}

async function ask(method, path, { body, signal } = {}) {
  const headers = { accept: "application/json", ...credentials() };
  if (method !== "GET") headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method, headers, signal, credentials: "omit", cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) {
    const refused = new Refused(response.status, await problemOf(response));
    if (response.status === 401 && !path.startsWith("/v1/login")) end();
    throw refused;
  }
  return response.status === 204 ? null : response.json();
}

/** A path with a query; parameters without a value are left out. */
export function target(path, params = {}) {
  const kept = Object.entries(params).filter(([, value]) => value !== undefined && value !== "");
  // The gateway takes a plus for a plus, as RFC 3986 does; a plus itself is escaped by now.
  const query = new URLSearchParams(kept).toString().replaceAll("+", "%20");
  return query ? `${path}?${query}` : path;
}

export const get = (path, params, signal) => ask("GET", target(path, params), { signal });
export const post = (path, body) => ask("POST", path, { body });
export const remove = (path, params) => ask("DELETE", target(path, params));

/** Begins a session by `{ token }` or `{ code }`. */
export async function logIn(proof) {
  const answer = await ask("POST", "/v1/login", { body: proof });
  sessionStorage.setItem(NAME, answer.session);
}

/** Ends the session, here and at the gateway. */
export async function logOut() {
  try {
    await remove("/v1/login");
  } finally {
    end();
  }
}

/** Forgets the session. */
export function end() {
  sessionStorage.removeItem(NAME);
  onEnd();
}
