// Opens a WebSocket as a page of a site does, sends messages, and says on lines of its own what
// becomes of it.
//
// usage: node socket.mjs URL TOKEN ORIGIN [MESSAGE ...]

import WebSocket from "ws";

const [url, token, origin, ...messages] = process.argv.slice(2);
const socket = new WebSocket(url, { headers: { cookie: `access_token=${token}`, origin } });
socket.on("unexpected-response", (_, response) => {
  console.log(`refused ${response.statusCode}`);
  process.exit();
});
socket.on("open", () => {
  console.log("open");
  for (const message of messages) socket.send(message);
});
socket.on("message", (data) => console.log(`told ${data}`));
socket.on("close", (code, reason) => console.log(`closed ${code} ${reason}`));
socket.on("error", (error) => console.log(`failed ${error.message}`));
