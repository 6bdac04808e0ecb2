// What scripts/delivery --beside bullmq asks of BullMQ, and the open loop for both. One line of
// JSON comes back. Run in the folder with its node_modules:
//   node bullmq.js add PORT COUNT         adds jobs of 1 KiB, 50 at a time
//   node bullmq.js work PORT COUNT        works on as many, 50 at a time
//   node bullmq.js open PORT RATE S       adds at a rate, whether answers come or not; the first
//                                         second, in which node compiles its code, is not told
//   node bullmq.js post URL RATE S        the same of requests to a gateway
import net from "node:net";
import { Queue, Worker } from "bullmq";

const BODY = "x".repeat(1024);
const WIDTH = 50;
const WARM_MS = 1000;
const [what, where, first, second] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(where), maxRetriesPerRequest: null };
// As ours: what is done stays for an hour.
const kept = { removeOnComplete: { age: 3600 }, removeOnFail: { age: 7 * 86400 } };

const share = (sorted, part) => sorted[Math.min(sorted.length - 1,
  Math.floor(sorted.length * part))];

function told(took, seconds) {
  const sorted = [...took].sort((a, b) => a - b);
  console.log(JSON.stringify({ n: took.length, seconds, p50: share(sorted, 0.5),
    p99: share(sorted, 0.99) }));
}

async function closed(count, act) {
  const took = [];
  let left = count;
  const began = performance.now();
  await Promise.all(Array.from({ length: WIDTH }, async () => {
    while (left-- > 0) {
      const at = performance.now();
      await act();
      took.push(performance.now() - at);
    }
  }));
  told(took, (performance.now() - began) / 1000);
}

// Latencies are from when a request was due.
async function open(rate, seconds, act) {
  const took = [];
  const all = [];
  const began = performance.now();
  for (let sent = 0; sent < rate * seconds;) {
    const due = Math.min(rate * seconds, ((performance.now() - began) / 1000) * rate);
    for (; sent < due; sent += 1) {
      const at = began + (sent / rate) * 1000;
      const tell = at - began >= WARM_MS;
      all.push(act().then(() => tell && took.push(performance.now() - at)));
    }
    await new Promise((done) => setTimeout(done, 1));
  }
  await Promise.all(all);
  told(took, (performance.now() - began) / 1000);
}

// Requests over plain sockets, one at a time on each: node's own client takes longer than the
// gateway, and would be what is measured.
function poster(url) {
  const { hostname, port, pathname } = new URL(url);
  const text = Buffer.from(`POST ${pathname} HTTP/1.1\r\nhost: ${hostname}:${port}\r\n`
    + `content-length: ${BODY.length}\r\n\r\n${BODY}`);
  const idle = [];
  const waiting = [];
  const use = (socket) => {
    const next = waiting.shift();
    if (!next) {
      idle.push(socket);
      return;
    }
    socket.ends = next;
    socket.write(text);
  };
  const ended = (socket, problem) => {
    const [done, failed] = socket.ends;
    socket.got = "";
    if (problem) failed(new Error(problem));
    else done();
    use(socket);
  };
  for (let n = 0; n < WIDTH; n += 1) {
    const socket = net.connect(Number(port), hostname, () => use(socket));
    socket.setNoDelay(true).setEncoding("latin1");
    socket.got = "";
    socket.on("data", (data) => {
      socket.got += data;
      const head = socket.got.indexOf("\r\n\r\n");
      const length = head < 0 ? null : /\r\ncontent-length: (\d+)/i.exec(socket.got);
      if (!length || socket.got.length < head + 4 + Number(length[1])) return;
      const status = socket.got.slice(9, 12);
      ended(socket, status === "202" ? null : `status ${status}`);
    });
    socket.on("error", (error) => socket.ends?.[1](error));
  }
  return () => new Promise((done, failed) => {
    waiting.push([done, failed]);
    const socket = idle.pop();
    if (socket) use(socket);
  });
}

async function work(count) {
  let done = 0;
  const began = performance.now();
  const worker = new Worker("work", async () => {}, { connection, concurrency: WIDTH });
  await new Promise((all) => worker.on("completed", () => (done += 1) === count && all()));
  told([0], (performance.now() - began) / 1000);
  await worker.close();
}

if (what === "post") {
  await open(Number(first), Number(second), poster(where));
} else if (what === "work") {
  await work(Number(first));
} else {
  const queue = new Queue("work", { connection, defaultJobOptions: kept });
  await queue.waitUntilReady();
  const add = () => queue.add("job", { body: BODY });
  await (what === "add" ? closed(Number(first), add) : open(Number(first), Number(second), add));
  await queue.close();
}
process.exit(0);
