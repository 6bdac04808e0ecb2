// The chain as most Node teams would build it: Fastify, ioredis (auto-pipelining), jsonwebtoken,
// rate-limiter-flexible, @fastify/http-proxy; two cluster workers. Run with NODE_PATH at its node_modules.
const cluster = require("node:cluster");
if (cluster.isPrimary) { cluster.fork(); cluster.fork(); return; }
const fs = require("node:fs");
const jwt = require("jsonwebtoken");
const Redis = require("ioredis");
const { RateLimiterRedis } = require("rate-limiter-flexible");
const app = require("fastify")({ logger: false });
const dir = process.argv[2];
const redis = new Redis({ host: "127.0.0.1", port: 18499, enableAutoPipelining: true });
const pem = fs.readFileSync(dir + "/es256.pub.pem");
const secret = "bench-secret-bench-secret-bench-secret";
const limiter = (points, duration, prefix) => new RateLimiterRedis({ storeClient: redis, points, duration, keyPrefix: prefix });
const wide = limiter(1e9, 60, "app:ratelimit:n"), tight = limiter(5, 3600, "app:ratelimit:t");
async function chain(req, reply, limit, cached) {
  const token = (req.headers.authorization || "").slice(7);
  let c;
  try {
    const h = JSON.parse(Buffer.from(token.split(".")[0], "base64url"));
    c = jwt.verify(token, h.alg === "ES256" ? pem : secret, { algorithms: [h.alg === "ES256" ? "ES256" : "HS256"] });
  } catch { return reply.code(401).send(); }
  const [black, lim, session, body] = await Promise.all([
    redis.exists("app:auth:blacklist:" + c.jti),
    limit.consume(c.sub).then(() => true, () => false),
    redis.get("app:session:" + c.sid),
    cached ? redis.get("app:cache:" + req.url) : null]);
  if (black) return reply.code(401).send();
  if (!lim) return reply.code(429).send();
  if (cached && body) return reply.header("content-type", "application/json").header("x-cache", "HIT").send(body);
  req.headers["x-user-id"] = c.sub;
  req.headers["x-session"] = Buffer.from(session || "").toString("base64");
}
const proxy = require("@fastify/http-proxy");
const up = { upstream: "http://127.0.0.1:18400", undici: { connections: 128, pipelining: 1 } };
app.register(proxy, { ...up, prefix: "/pass", rewritePrefix: "/pass" });
app.register(proxy, { ...up, prefix: "/api", rewritePrefix: "/api", preHandler: (q, r) => chain(q, r, wide, false) });
app.register(proxy, { ...up, prefix: "/cached", rewritePrefix: "/cached", preHandler: (q, r) => chain(q, r, wide, true) });
app.register(proxy, { ...up, prefix: "/deny", rewritePrefix: "/deny", preHandler: (q, r) => chain(q, r, tight, false) });
app.listen({ port: 18420, host: "127.0.0.1", backlog: 4096 });
