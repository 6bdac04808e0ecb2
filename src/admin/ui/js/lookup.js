// A form that asks for one thing by its name, and shows what is known of it. The name is a part of
// the view, so that it can be sent on.

import { fill, h } from "./dom.js";
import { adjust } from "./router.js";

/**
 * `name` is the parameter of the view. `show(value)` fetches and returns what to show.
 * Returns `{ node, onView(params), again() }`.
 */
export function lookUp({ signal }, { name, heading, label, placeholder, show }) {
  const input = h("input", {
    name, required: true, placeholder, autocomplete: "off", spellcheck: "false",
  });
  const place = h("div", { class: "answer", role: "status" });
  let shown = "";
  let turn = 0;

  async function look(value) {
    // An answer that comes after the next question is nobody's any more.
    const own = ++turn;
    try {
      const answer = await show(value);
      if (own === turn) fill(place, answer);
    } catch (error) {
      if (signal.aborted || own !== turn) return;
      fill(place, h("p", { class: "outcome" }, `✖ ${error.message}`));
    }
  }

  const submit = (event) => {
    event.preventDefault();
    if (input.value === shown) look(shown);
    else adjust({ [name]: input.value });
  };
  const node = h("section", { class: "block", "aria-label": heading },
    h("div", { class: "block-head" }, h("h2", {}, heading)),
    h("form", { class: "row-form", on: { submit } },
      h("label", { class: "field grow" }, label, input),
      h("button", { type: "submit" }, "Look up")), place);
  return {
    node,
    onView(params) {
      const wanted = params[name] ?? "";
      if (wanted === shown) return;
      shown = wanted;
      if (!wanted) return;
      input.value = wanted;
      look(wanted);
    },
    again: () => shown && look(shown),
  };
}
