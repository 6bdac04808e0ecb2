// The one stream of events of a tab. It is read by `fetch`, because an EventSource cannot say who
// asks, and closed while nobody looks: browsers allow six connections to a host.

import { credentials, end } from "./api.js";

const WAIT_MIN_MS = 1_000;
const WAIT_MAX_MS = 30_000;
// The gateway says something at least each 15 s.
const SILENCE_MAX_MS = 40_000;

/**
 * Events of the gateway by their names, each with its data as `detail`, and `state` with one of
 * `connecting`, `live`, `lost`, `paused`, `hidden`.
 */
class Live extends EventTarget {
  state = "hidden";
  why = "";
  isPaused = false;
  #wanted = false;
  #abort = null;
  #timer = 0;
  #failures = 0;

  constructor() {
    super();
    document.addEventListener("visibilitychange", () => this.#settle());
    addEventListener("online", () => this.#settle());
  }

  start() {
    this.#wanted = true;
    this.#settle();
  }

  stop() {
    this.#wanted = false;
    this.#settle();
  }

  /** Stops the numbers, or lets them go on. */
  pause(isPaused) {
    this.isPaused = isPaused;
    this.#settle();
  }

  /** Calls `listener` with the data of each such event, until `signal` ends. */
  on(name, listener, signal) {
    this.addEventListener(name, (event) => listener(event.detail), { signal });
  }

  #tell(state, why = "") {
    if (state === this.state && why === this.why) return;
    Object.assign(this, { state, why });
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }

  #settle() {
    clearTimeout(this.#timer);
    const rests = !this.#wanted || this.isPaused || document.hidden;
    if (rests) {
      this.#abort?.abort();
      this.#abort = null;
      this.#failures = 0;
      this.#tell(this.isPaused ? "paused" : "hidden");
    } else if (!this.#abort) {
      this.#open();
    }
  }

  async #open() {
    const abort = new AbortController();
    this.#abort = abort;
    if (this.#failures === 0) this.#tell("connecting");
    let why = "the gateway has closed the stream";
    try {
      why = await this.#read(abort) ?? why;
    } catch (error) {
      why = error instanceof TypeError ? "no gateway answers" : error.message;
    }
    if (abort !== this.#abort) return;
    this.#abort = null;
    this.#failures += 1;
    this.#tell("lost", why);
    const longest = Math.min(WAIT_MAX_MS, WAIT_MIN_MS * 2 ** (this.#failures - 1));
    // Tabs that lost one gateway do not come back all at once.
    const wait = longest * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#settle(), wait);
  }

  async #read(abort) {
    const response = await fetch("/v1/live", {
      headers: { accept: "text/event-stream", ...credentials() },
      signal: abort.signal, credentials: "omit", cache: "no-store",
    });
    if (response.status === 401) end();
    if (!response.ok) return `the gateway answers ${response.status}`;
    let watch = 0;
    const heard = () => {
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort(new Error("the stream is silent")), SILENCE_MAX_MS);
    };
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        heard();
        const { value, done } = await reader.read();
        if (done) return null;
        this.#failures = 0;
        this.#tell("live");
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        blocks.forEach((block) => this.#hear(block));
      }
    } finally {
      clearTimeout(watch);
    }
  }

  #hear(block) {
    let name = "message";
    const data = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      if (line.startsWith("data:")) data.push(line.slice(5));
    }
    if (data.length === 0) return;
    this.dispatchEvent(new CustomEvent(name, { detail: JSON.parse(data.join("\n")) }));
  }
}

export const live = new Live();
