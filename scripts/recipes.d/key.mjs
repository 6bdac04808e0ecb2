// Prints the public half of a key in PEM as a JSON Web Key.
//
// usage: node key.mjs FILE ALGORITHM KEY_ID

import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";

const [file, alg, kid] = process.argv.slice(2);
const jwk = createPublicKey(readFileSync(file)).export({ format: "jwk" });
console.log(JSON.stringify({ ...jwk, use: "sig", alg, kid }));
