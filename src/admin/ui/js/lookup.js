// A form that asks for one thing by its name, and shows what is known of it. The name is a part of
// the view, so that it can be sent on.

import { fill, h } from "./dom.js";
import { adjust } from "./router.js";

/**
 * `name` is the parameter of the view. `ask(value)` fetches, `draw(answer, value)` shows what came
 * and returns what else to show, and `clear()` takes away what was drawn: nothing of one name
 * stands under another. Returns `{ node, onView(params), again() }`.
 */
export function lookUp({ signal }, { name, heading, label, placeholder, ask, draw, clear }) {
  const input = h("input", {
    name, required: true, placeholder, autocomplete: "off", spellcheck: "false",
  });
  const place = h("div", { class: "answer", role: "status" });
  let shown = "";
  let turn = 0;

  function leave() {
    turn += 1;
    clear();
    fill(place);
  }

  async function look(value) {
    // An answer that comes after the next question is nobody's any more.
    const own = ++turn;
    try {
      const answer = await ask(value);
      if (own === turn) fill(place, draw(answer, value));
    } catch (error) {
      if (signal.aborted || own !== turn) return;
      leave();
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
      input.value = wanted;
      leave();
      if (wanted) look(wanted);
    },
    again: () => shown && look(shown),
  };
}
