// The page of those who have no session: by the token, or by the code of `portcullis dashboard`.

import { logIn } from "./api.js";
import { fill, h, say, set } from "./dom.js";

/** Takes a one-time code out of the address, so that it stays in no history. */
export function takeCode() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) history.replaceState(null, "", "#/overview");
  return code;
}

/** Shows the form in `main`; `enter` is called when the session has begun. */
export function showLogIn(main, enter, why) {
  const said = h("p", { role: "alert", class: "outcome" }, why ?? "");
  const token = h("input", {
    type: "password", name: "token", autocomplete: "current-password", required: true, id: "token",
  });
  const button = h("button", { type: "submit", class: "verb" }, "Log in");
  const submit = async (event) => {
    event.preventDefault();
    set(button, "disabled", true);
    try {
      await logIn({ token: token.value });
      enter();
    } catch (error) {
      say(said, error.message);
      token.select();
    } finally {
      set(button, "disabled", false);
    }
  };
  const warning = !isSecureContext && h("p", { class: "warning" },
    h("span", { class: "state watch" }, h("span", { "aria-hidden": "true" }, "▲ "), "watch"),
    " This page came in clear over a network: others on it can read what you send.");
  fill(main, h("div", { class: "alone" },
    h("h1", {}, "Portcullis"),
    h("form", { on: { submit } },
      // For password managers, which want a name beside a password.
      h("input", { type: "text", autocomplete: "username", value: "admin", hidden: true }),
      h("label", { class: "field", for: "token" }, "Token of the admin listener"), token, button),
    said, warning,
    h("p", { class: "quiet" }, "Or run ", h("code", {}, "portcullis dashboard"),
      " beside the gateway: it prints a link that opens this page once.")));
  token.focus();
}
