// The last five minutes of each route, in 60 points of 5 s, for the small charts in tables. They
// begin with what the gateway remembers and go on with the ticks.

const STEP_S = 5;
const POINTS = 60;
export const ALL = "*";

class History {
  #series = new Map();
  #seeded = new Set();
  #sums = new Map();
  #ticks = 0;

  /** Takes over what the gateway remembers: `GET /v1/series`. */
  seed(name, series) {
    const per = Math.max(1, Math.round(STEP_S / series.step_s));
    // A point of ten seconds stands for two of five.
    const times = Math.max(1, Math.round(series.step_s / STEP_S));
    const kept = {};
    for (const [field, values] of Object.entries(series)) {
      if (!Array.isArray(values)) continue;
      const points = [];
      for (let end = values.length; end > 0 && points.length < POINTS; end -= per) {
        const point = mean(values.slice(Math.max(0, end - per), end));
        for (let copy = 0; copy < times && points.length < POINTS; copy += 1) points.unshift(point);
      }
      kept[field] = points;
    }
    this.#series.set(name, kept);
    this.#seeded.add(name);
  }

  /** Has everything fetched again. */
  forget() {
    this.#seeded.clear();
  }

  /** Takes one tick; true when the charts have a new point. */
  push(tick) {
    this.#add(ALL, tick.all);
    for (const [name, numbers] of Object.entries(tick.routes ?? {})) this.#add(name, numbers);
    this.#ticks += 1;
    if (this.#ticks % STEP_S !== 0) return false;
    for (const [name, sums] of this.#sums) {
      const series = this.#series.get(name) ?? {};
      for (const [field, values] of Object.entries(sums)) {
        series[field] = [...(series[field] ?? []), mean(values)].slice(-POINTS);
      }
      this.#series.set(name, series);
    }
    this.#sums.clear();
    return true;
  }

  /** The points of a field, the newest last. */
  of(name, field) {
    return this.#series.get(name)?.[field] ?? [];
  }

  /** Whether what the gateway remembers is there. */
  isSeeded(name) {
    return this.#seeded.has(name);
  }

  #add(name, numbers) {
    const sums = this.#sums.get(name) ?? {};
    for (const [field, value] of Object.entries(numbers ?? {})) {
      (sums[field] ??= []).push(value);
    }
    this.#sums.set(name, sums);
  }
}

function mean(values) {
  const known = values.filter((value) => typeof value === "number");
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

export const recent = new History();
