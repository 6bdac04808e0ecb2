// The pages, in the order of the navigation. A page is a module of this folder with
//   title, path, key      its name, its fragment, and its letter behind `g`
//   render(context)       returns { node, onView? }
// `context` has `me`, `canOperate`, `api`, `live`, `announce(text)`, and `signal`, which ends when
// the page is left: give it to `live.on` and to fetches. `every(seconds, look)` looks now and again
// while somebody watches. `onView(params)` hears of the filter `q` and the page's own parameters.
// Numbers that change have the class `live`; text goes through `h` and `say` of dom.js, never into
// markup. A new page is a line here and one in src/admin/ui.rs.

import * as audit from "./audit.js";
import * as cache from "./cache.js";
import * as config from "./config.js";
import * as identity from "./identity.js";
import * as limits from "./limits.js";
import * as overview from "./overview.js";
import * as queues from "./queues.js";
import * as refusals from "./refusals.js";
import * as store from "./store.js";
import * as traffic from "./traffic.js";
import * as upstreams from "./upstreams.js";

export const PAGES = [
  overview, traffic, refusals, limits, cache, identity, upstreams, store, queues, config, audit,
];
