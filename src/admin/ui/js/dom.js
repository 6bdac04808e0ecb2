// Elements, and lists of them that change without being built anew. Text is always a text node:
// paths, hosts and agents are written by whoever sends requests.

const SVG = "http://www.w3.org/2000/svg";

// Control, bidirectional and other characters that show as nothing, or turn what is around them.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/g;

/** Text of a stranger, in which every character can be seen. */
export function shown(text) {
  const escape = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return String(text).replace(UNSEEN, escape);
}

/** An element: `h("p", { class: "quiet", on: { click } }, "text", child)`. */
export function h(name, props, ...children) {
  return make(document.createElement(name), props, children);
}

/** The same in SVG. */
export function svg(name, props, ...children) {
  return make(document.createElementNS(SVG, name), props, children);
}

function make(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        element.addEventListener(event, listener);
      }
    } else {
      set(element, name, value);
    }
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(shown(child)));
  }
}

/** Sets an attribute if it is another one; null and false take it away. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Sets the text of an element if it is another one, so that a selection of it survives. */
export function say(element, text) {
  const next = shown(text ?? "");
  if (element.textContent !== next) element.textContent = next;
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/**
 * Makes the children of `parent` those of `items`, in their order. Elements stay where their key
 * stays, so focus, selection and scroll positions survive: `make(item)` builds one, and
 * `update(element, item)` is called for each.
 */
export function patch(parent, items, { key, make: build, update }) {
  const known = parent.keyed ?? (parent.keyed = new Map());
  const next = new Map();
  for (const item of items) {
    const name = key(item);
    if (next.has(name)) continue;
    const element = known.get(name) ?? build(item);
    update?.(element, item);
    next.set(name, element);
  }
  for (const [name, element] of known) {
    if (!next.has(name)) element.remove();
  }
  let at = parent.firstElementChild;
  for (const element of next.values()) {
    if (element === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(element, at);
    }
  }
  parent.keyed = next;
}

/** A state that is never colour alone: a mark, a colour and a word. */
export function state(level, word) {
  const mark = { good: "●", info: "●", watch: "▲", poor: "✖" }[level] ?? "●";
  return h("span", { class: `state ${level}` },
    h("span", { "aria-hidden": "true" }, `${mark} `), word ?? level);
}
