// The filter: words, and qualifiers such as `route:login status:4xx sub:42`. All of them must hold.

const ALIASES = { sub: "subject", policy: "limit", code: "reason" };

/** Reads a filter. Quotes keep a value together. */
export function parse(text) {
  const fields = {};
  const words = [];
  for (const [, name, quoted, plain] of (text ?? "").matchAll(/(?:(\w+):)?(?:"([^"]*)"|(\S+))/g)) {
    const value = quoted ?? plain;
    if (name) {
      fields[ALIASES[name] ?? name] = value;
    } else {
      words.push(value.toLowerCase());
    }
  }
  return { fields, words };
}

function matches(value, wanted) {
  if (value === undefined || value === null) return false;
  const text = String(value).toLowerCase();
  const pattern = wanted.toLowerCase();
  if (/^\dxx$/.test(pattern)) return text.length === 3 && text[0] === pattern[0];
  return text === pattern || (Number.isNaN(Number(pattern)) && text.includes(pattern));
}

/**
 * Whether a row is wanted. A qualifier that rows of its table do not know says nothing of them:
 * `status:429` leaves a table of routes as it is.
 */
export function keeps({ fields, words }, row, known, texts) {
  for (const [name, wanted] of Object.entries(fields)) {
    if (known.has(name) && !matches(row[name], wanted)) return false;
  }
  if (words.length === 0) return true;
  const all = texts().join(" ").toLowerCase();
  return words.every((word) => all.includes(word));
}
