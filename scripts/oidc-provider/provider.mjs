// The OpenID provider that the tests run: oidc-provider, with an account that logs in by itself.
//
// usage: node provider.mjs SETTINGS     in the folder that has oidc-provider in node_modules
//
// SETTINGS is JSON: {"accessTokenSeconds": 3600, "formsToClick": false}. The first line of its
// output is its port. What tests tell it:
//   POST /test/clients    a client's metadata, as JSON; written over the one of its client_id
//   POST /test/account    {"sub": "ada"}, who logs in next
// It ends when its standard input does.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const library = pathToFileURL(`${process.cwd()}/node_modules/oidc-provider/lib/`).href;
const { default: Provider } = await import(`${library}index.js`);
const { default: Adapter } = await import(`${library}adapters/memory_adapter.js`);

const settings = JSON.parse(process.argv[2] ?? "{}");
const server = createServer();
await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;
let sub = "ada";

const provider = new Provider(issuer, {
  clients: [],
  pkce: { required: () => true, methods: ["S256"] },
  scopes: ["openid", "email", "profile", "offline_access"],
  claims: { openid: ["sub"], email: ["email"], profile: ["name", "roles"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["of a test"] },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        ctx.body = `<!doctype html><title>Log out</title>${form}
<script>document.forms[0].insertAdjacentHTML("beforeend",
'<input type="hidden" name="logout" value="yes">'); document.forms[0].submit();</script>`;
      },
    },
    userinfo: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      email: `${id}@shop.test`,
      name: id.toUpperCase(),
      roles: id === "ada" ? ["admin", "user"] : ["user"],
    }),
  }),
  loadExistingGrant: async (ctx) => {
    const { client, session } = ctx.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope("openid email profile offline_access");
    await grant.save();
    return grant;
  },
  issueRefreshToken: async (_, client) => client.grantTypeAllowed("refresh_token"),
  rotateRefreshToken: true,
  ttl: {
    AccessToken: settings.accessTokenSeconds ?? 3600,
    IdToken: 3600,
    RefreshToken: 86400,
    Session: 86400,
    Interaction: 600,
    Grant: 86400,
  },
  // The tests' gateways are on this machine, some with certificates of their own.
  httpOptions: () => ({ timeout: 5000 }),
});

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString() || "{}");
}

async function told(request, response) {
  const said = await body(request);
  if (request.url === "/test/clients") {
    await new Adapter("Client").upsert(said.client_id, said);
  } else {
    sub = said.sub;
  }
  response.writeHead(204).end();
}

async function interact(request, response) {
  if (settings.formsToClick && request.method === "GET") {
    response.writeHead(200, { "content-type": "text/html" });
    response.end(`<!doctype html><title>Provider</title><h1>Provider</h1>
<form method="post"><button>Log in as ${sub}</button></form>`);
    return;
  }
  await provider.interactionFinished(request, response, { login: { accountId: sub } });
}

provider.on("server_error", (_, error) => console.error(error));
provider.on("backchannel.error", (_, error) => console.error("backchannel", error.message));
const answer = provider.callback();
server.on("request", (request, response) => {
  const failed = (error) => {
    console.error(error);
    response.writeHead(500).end();
  };
  if (request.url.startsWith("/test/")) told(request, response).catch(failed);
  else if (request.url.startsWith("/interaction/")) interact(request, response).catch(failed);
  else answer(request, response);
});
process.stdin.on("end", () => process.exit(0)).resume();
console.log(port);
