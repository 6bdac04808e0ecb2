// Numbers as a person reads them. What is not known is a dash, never a zero, and a number keeps its
// digits behind the point, so that columns do not jump.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fixed = (digits) => new Intl.NumberFormat("en", {
  minimumFractionDigits: digits, maximumFractionDigits: digits,
});
const one = fixed(1);
const two = fixed(2);

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A count. */
export const count = (value) => (known(value) ? whole.format(value) : NONE);

/** A rate per second. */
export function rate(value) {
  if (!known(value)) return NONE;
  return value >= 1000 ? whole.format(value) : one.format(value);
}

/** A part of one, in percent. */
export function percent(value) {
  if (!known(value)) return NONE;
  const parts = value * 100;
  return `${parts > 0 && parts < 10 ? one.format(parts) : whole.format(parts)} %`;
}

/** A time in seconds, with three digits at most. */
export function seconds(value) {
  if (!known(value)) return NONE;
  const [number, unit] = value < 1 ? [value * 1000, "ms"] : [value, "s"];
  const [small, middle] = unit === "s" ? [two, one] : [one, whole];
  const form = number < 10 ? small : number < 100 ? middle : whole;
  return `${form.format(number)} ${unit}`;
}

/** A time in microseconds. */
export const micros = (value) => (known(value) ? seconds(value / 1e6) : NONE);

/** Bytes, by powers of 1,024. */
export function bytes(value) {
  if (!known(value)) return NONE;
  let number = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (number < 1024 || unit === "GiB") {
      return `${(number < 10 && unit !== "B" ? one : whole).format(number)} ${unit}`;
    }
    number /= 1024;
  }
  return NONE;
}

/** A long time: its two largest units. */
export function span(value) {
  if (!known(value)) return NONE;
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const first = Math.max(0, units.findIndex(([, size]) => value >= size));
  if (value < 1) return "0s";
  return units.slice(first, first + 2).map(([unit, size], index) => {
    const part = index === 0 ? value / size : (value % units[first][1]) / size;
    return `${Math.floor(part)}${unit}`;
  }).join(" ");
}

/** The time of day of an RFC 3339 timestamp, where the browser is. */
export function clock(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? NONE : at.toLocaleTimeString("en-GB");
}

/** Day and time of an RFC 3339 timestamp. */
export function moment(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return NONE;
  return `${at.toLocaleDateString("sv-SE")} ${at.toLocaleTimeString("en-GB")}`;
}
