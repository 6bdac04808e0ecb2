// Makes calls of the page's gRPC service, all at once, and prints the status of each, with what the
// gateway says of when to come again.
//
// usage: node calls.mjs ADDRESS TOKEN COUNT

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address, token, count] = process.argv.slice(2);
const { shop } = grpc.loadPackageDefinition(loadSync("shop.proto"));
const client = new shop.Products(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);
for (let at = 0; at < count; at += 1) {
  client.Get({ id: "1" }, metadata, (error, product) => {
    const again = error?.metadata.get("grpc-retry-pushback-ms")[0] ?? "-";
    console.log(error ? error.code : 0, again, product ? product.user : "-");
  });
}
