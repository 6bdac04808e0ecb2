// A service of NestJS on NATS with a handler for each kind of reply. Decorators are called as
// functions, so that nothing has to be compiled.
//
// usage: node service.js nats://HOST:PORT
import "reflect-metadata";
import { Controller, HttpException, Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { Ctx, MessagePattern, Payload, RpcException, Transport } from "@nestjs/microservices";
import { from, map, of, range } from "rxjs";

class Orders {
  one(data) {
    return { id: data.params.id, query: data.query };
  }
  nothing() {}
  none() {
    return null;
  }
  several() {
    return of("a", ["b"], 3);
  }
  // All at once: the last of them says that there are no more.
  count(data) {
    return range(0, Number(data.params.id));
  }
  // One after the other, as a cursor reads them: a message of its own says that.
  later(data) {
    const next = () => new Promise((done) => setImmediate(done));
    async function* all() {
      for (let value = 0; value < Number(data.params.id); value++) {
        await next();
        yield value;
      }
      await next();
    }
    return from(all());
  }
  large(data) {
    return range(0, Number(data.params.id)).pipe(map(() => "x".repeat(1_000_000)));
  }
  sum(numbers) {
    return numbers.reduce((sum, number) => sum + number, 0);
  }
  rpc() {
    throw new RpcException({ status: 404, message: "no such order" });
  }
  rpcCode() {
    throw new RpcException({ statusCode: 409, message: "taken" });
  }
  rpcText() {
    throw new RpcException("out of order");
  }
  http() {
    throw new HttpException("no such order", 404);
  }
  error() {
    throw new Error("a secret of the service");
  }
  fields(_data, context) {
    const fields = context.getHeaders();
    return { method: fields.get("X-Http-Method"), target: fields.get("X-Http-Target") };
  }
}

const patterns = {
  one: "orders.one",
  nothing: "orders.nothing",
  none: "orders.none",
  several: "orders.several",
  count: "orders.count",
  later: "orders.later",
  large: "orders.large",
  sum: { cmd: "sum", v: 1 },
  rpc: "orders.rpc",
  rpcCode: "orders.rpc-code",
  rpcText: "orders.rpc-text",
  http: "orders.http",
  error: "orders.error",
  fields: "orders.fields",
};
for (const [name, pattern] of Object.entries(patterns)) {
  const descriptor = Object.getOwnPropertyDescriptor(Orders.prototype, name);
  Payload()(Orders.prototype, name, 0);
  if (name === "fields") {
    Ctx()(Orders.prototype, name, 1);
  }
  MessagePattern(pattern)(Orders.prototype, name, descriptor);
}
Controller()(Orders);

class Application {}
Module({ controllers: [Orders] })(Application);

const service = await NestFactory.createMicroservice(Application, {
  transport: Transport.NATS,
  options: { servers: [process.argv[2]], queue: "orders" },
  logger: ["error", "warn"],
});
await service.listen();
console.log("the service listens");
