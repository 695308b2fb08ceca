// node-postgres: 12 tenants on a pool of 8, each told by a bound set_config.
"use strict";

const assert = require("node:assert/strict");
const readline = require("node:readline");
const { Client, Pool } = require("pg");

const TENANTS = Array.from({ length: 12 }, (_, index) => index + 1);
const OPTIONS = {
  host: "127.0.0.1",
  port: Number(process.env.PGIMBAL_PORT),
  user: "scram",
  password: "scram-secret",
  database: "app",
};

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function look(what) {
  console.log(`look at ${what}`);
  await input.next();
}

const together = (work) => Promise.all(TENANTS.map(work));

async function seesItsOwn(client, tenant, query = "select tenant from orders") {
  const { rows } = await client.query(query);
  assert.deepEqual([...new Set(rows.map((row) => row.tenant))], [tenant]);
  assert.equal(rows.length, tenant);
}

async function forTheSession(client, tenant) {
  await client.query("SELECT set_config('app.tenant_id', $1, false)", [String(tenant)]);
  for (let step = 0; step < 10; step++) {
    await seesItsOwn(client, tenant);
    await seesItsOwn(client, tenant, { name: "orders", text: "select tenant from orders where item <> $1", values: [""] });
  }
  // What is rolled back leaves the one before, and so does what fails.
  await client.query("BEGIN");
  await client.query("SELECT set_config('app.tenant_id', $1, false)", ["99"]);
  await client.query("ROLLBACK");
  await assert.rejects(client.query("SELECT set_config('app.tenant_id', $1, false), 1 / (length($1) - 2)", ["99"]), { code: "22012" });
  await seesItsOwn(client, tenant);
}

async function forTheTransaction(client, tenant) {
  const other = (tenant % TENANTS.length) + 1;
  for (let step = 0; step < 10; step++) {
    await client.query("BEGIN");
    await client.query("SELECT set_config('app.tenant_id', $1, true)", [String(other)]);
    await seesItsOwn(client, other);
    await client.query(step % 2 ? "COMMIT" : "ROLLBACK");
    await seesItsOwn(client, tenant);
  }
}

async function byName(client, tenant) {
  // A named statement, and two settings of which both the names and the values are bound.
  const tell = { name: "tell", text: "SELECT set_config($1, $2, $3), set_config($4, $5, $6)" };
  for (let step = 0; step < 5; step++) {
    await client.query({ ...tell, values: ["app.tenant_id", String(tenant), false, "app.user", `user ${tenant}`, false] });
    await seesItsOwn(client, tenant);
    const { rows } = await client.query("select current_setting('app.user') as name");
    assert.equal(rows[0].name, `user ${tenant}`);
  }
}

async function pooled() {
  // node-postgres' own pool, whose users tell their tenant each time they take a connection.
  const pool = new Pool({ ...OPTIONS, max: 12 });
  await Promise.all([...TENANTS, ...TENANTS, ...TENANTS].map(async (tenant) => {
    const client = await pool.connect();
    try {
      await client.query("SELECT set_config('app.tenant_id', $1, false)", [String(tenant)]);
      await seesItsOwn(client, tenant);
    } finally {
      client.release();
    }
  }));
  await look("a pool");
  await pool.end();
}

async function main() {
  const clients = TENANTS.map(() => new Client(OPTIONS));
  await together((tenant) => clients[tenant - 1].connect());
  for (const step of [forTheSession, forTheTransaction, byName]) {
    await together((tenant) => step(clients[tenant - 1], tenant));
    await look(step.name);
  }
  await together((tenant) => clients[tenant - 1].end());
  await pooled();
  const nobody = new Client(OPTIONS);
  await nobody.connect();
  const { rows } = await nobody.query("select current_setting('app.tenant_id', true) as tenant");
  assert.ok(rows[0].tenant === null || rows[0].tenant === "", rows[0].tenant);
  await nobody.end();
  console.log("all done");
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
