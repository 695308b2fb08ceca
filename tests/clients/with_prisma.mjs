// Prisma 7 through its pg adapter, with a schema of deploy/examples: with_prisma.mjs NAME FOLDER,
// FOLDER being what tests/clients/prisma/program prints. DATABASE_URL is the example's.
//
// Prisma's own migration engine runs here too, as the WebAssembly module that Prisma ships; the
// command line has it as a program that cannot be had from npm.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [name, folder, example] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { PrismaPg } = require("@prisma/adapter-pg");
const { bindMigrationAwareSqlAdapterFactory } = require("@prisma/driver-adapter-utils");
const { PrismaClient } = require(`./${name}/generated`);
const CLIENTS = 12;
const ROUNDS = 15;

// The pool of the adapter is pg's; its size is max.
const adapter = (max) => new PrismaPg({ connectionString: process.env.DATABASE_URL, max });

async function engine() {
    const files = join(folder, "node_modules/@prisma/schema-engine-wasm");
    const bindings = await import(pathToFileURL(join(files, "schema_engine_bg.js")));
    const bytes = readFileSync(join(files, "schema_engine_bg.wasm"));
    const { instance } = await WebAssembly.instantiate(bytes, { "./schema_engine_bg.js": bindings });
    bindings.__wbg_set_wasm(instance.exports);
    instance.exports.__wbindgen_start();
    const schema = readFileSync(join(example, "schema.prisma"), "utf8");
    return () =>
        bindings.SchemaEngine.new(
            { datamodels: [["schema.prisma", schema]] },
            () => {},
            bindMigrationAwareSqlAdapterFactory(adapter(1)),
        );
}

const filters = { externalTables: [], externalEnums: [] };

/**
 * `prisma migrate deploy`, twice. One connection each, since the engine takes its lock on one of
 * the adapter's and would release it on another.
 */
async function migrate() {
    const make = await engine();
    const directory = join(example, "migrations");
    const migrationDirectories = readdirSync(directory).sort().map((path) => ({
        path,
        migrationFile: {
            path: "migration.sql",
            content: { tag: "ok", value: readFileSync(join(directory, path, "migration.sql"), "utf8") },
        },
    }));
    const migrationsList = {
        baseDir: directory,
        lockfile: { path: "migration_lock.toml", content: 'provider = "postgresql"\n' },
        shadowDbInitScript: "",
        migrationDirectories,
    };
    const first = await (await make()).applyMigrations({ migrationsList, filters });
    assert.deepEqual(first.appliedMigrationNames, migrationDirectories.map((one) => one.path));
    const second = await (await make()).applyMigrations({ migrationsList, filters });
    assert.deepEqual(second.appliedMigrationNames, []);
}

async function links(prisma, client, part) {
    const collection = await prisma.collection.create({ data: { name: `${client} ${part}` } });
    for (let round = 0; round < ROUNDS; round++) {
        const { id } = await prisma.link.create({ data: { url: `u${round}`, collectionId: collection.id } });
        await prisma.$transaction(async (tx) => {
            const { visits } = await tx.link.findUniqueOrThrow({ where: { id } });
            await tx.link.update({ where: { id }, data: { visits: visits + 1 } });
        });
        await assert.rejects(
            prisma.$transaction(async (tx) => {
                await tx.link.update({ where: { id }, data: { visits: 1000 } });
                throw new Error("roll back");
            }),
            /roll back/,
        );
        const batch = await prisma.$transaction([
            prisma.link.update({ where: { id }, data: { visits: { increment: 1 } } }),
            prisma.link.count({ where: { collectionId: collection.id } }),
        ]);
        assert.deepEqual([batch[0].visits, batch[1]], [2, round + 1]);
    }
    const all = await prisma.collection.findUniqueOrThrow({
        where: { id: collection.id },
        include: { links: { orderBy: { id: "asc" } } },
    });
    assert.equal(all.links.length, ROUNDS);
    const error = await prisma.collection.create({ data: { name: `${client} ${part}` } }).catch((e) => e);
    assert.equal(error.code, "P2002");
    const [{ sum }] = await prisma.$queryRaw`select sum(visits)::int from "Link" where "collectionId" = ${collection.id}`;
    assert.equal(sum, 2 * ROUNDS);
}

async function updates(prisma) {
    const workspace = await prisma.workspace.create({ data: { public: true } });
    const blob = (number) => Uint8Array.from({ length: 2000 }, (_, at) => (at * number) % 256);
    for (let round = 0; round < ROUNDS; round++) {
        await prisma.update.createMany({
            data: [2 * round, 2 * round + 1].map((number) => ({
                workspaceId: workspace.id, number, blob: blob(number),
            })),
        });
        await prisma.$transaction(async (tx) => {
            // As AFFiNE's mutex for a document would be; it ends with its transaction.
            await tx.$executeRaw`select pg_advisory_xact_lock(hashtext(${workspace.id}))`;
            const found = await tx.update.findMany({
                where: { workspaceId: workspace.id }, orderBy: { number: "asc" },
            });
            assert.equal(found.length, 2 * round + 2);
            assert.deepEqual(Uint8Array.from(found[2 * round].blob), blob(2 * round));
        });
    }
    await prisma.workspace.delete({ where: { id: workspace.id } });
    assert.equal(await prisma.update.count({ where: { workspaceId: workspace.id } }), 0);
}

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function look(what) {
    console.log(`look at ${what}`);
    await input.next();
}

await migrate();
const clients = [0, 1, 2].map(() => new PrismaClient({ adapter: adapter(4) }));
const load = (part) =>
    Promise.all(
        Array.from({ length: CLIENTS }, (_, client) => {
            const prisma = clients[client % clients.length];
            return name === "linkwarden" ? links(prisma, client, part) : updates(prisma);
        }),
    );
await load(1);
await look("the restart");
await load(2);
await Promise.all(clients.map((one) => one.$disconnect()));
console.log("all done");
process.exit(0);
