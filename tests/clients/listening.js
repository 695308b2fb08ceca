// node-postgres: 12 clients that LISTEN on a pool of 5.
"use strict";

const assert = require("node:assert/strict");
const { Client } = require("pg");

const OPTIONS = {
  host: "127.0.0.1",
  port: Number(process.env.PGIMBAL_PORT),
  user: "scram",
  password: "scram-secret",
  database: "app",
};
const LISTENERS = 12;

async function listener(number) {
  const client = new Client(OPTIONS);
  await client.connect();
  const heard = [];
  client.on("notification", (message) => heard.push([message.channel, message.payload]));
  await client.query(`LISTEN "Queue ${number % 3}"`);
  return { client, heard };
}

async function main() {
  const listeners = await Promise.all(Array.from({ length: LISTENERS }, (_, number) => listener(number)));
  const other = new Client(OPTIONS);
  await other.connect();
  for (let number = 0; number < 30; number++) {
    await other.query("SELECT pg_notify($1, $2)", [`Queue ${number % 3}`, String(number)]);
  }
  for (const [number, { client, heard }] of listeners.entries()) {
    const expected = Array.from({ length: 30 }, (_, n) => [`Queue ${n % 3}`, String(n)])
      .filter((_, n) => n % 3 === number % 3);
    while (heard.length < expected.length) {
      await new Promise((resolve) => client.once("notification", resolve));
    }
    assert.deepEqual(heard, expected);
    const { rows } = await client.query("SELECT $1::int AS n", [number]);
    assert.equal(rows[0].n, number);
    await client.query("UNLISTEN *");
    await client.end();
  }
  await other.end();
}

main()
  .then(() => console.log("all done"))
  .catch((error) => {
  console.error(error);
  process.exit(1);
});
