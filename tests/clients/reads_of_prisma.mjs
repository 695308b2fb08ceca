// Reads by Prisma 7 through its pg adapter, as docs/reads.md has them: reads_of_prisma.mjs FOLDER,
// FOLDER being what tests/clients/prisma/program prints. tests/tests/reads/frameworks.rs says what
// the variables mean.

import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

const require = createRequire(join(process.argv[2], "package.json"));
const { PrismaPg } = require("@prisma/adapter-pg");
const { PrismaClient } = require("./linkwarden/generated");
const { PGIMBAL_PORT, READS_OF, READS, READS_CONNECTIONS, READS_DATABASE, READS_PAUSE } = process.env;
const connectionString = `postgresql://app:app-secret@127.0.0.1:${PGIMBAL_PORT}/${READS_DATABASE}`;
const adapter = new PrismaPg({ connectionString, max: Number(READS_CONNECTIONS) });
const prisma = new PrismaClient({ adapter });
const reads = [
    (db, step) => db.link.findMany({ where: { id: { lt: step } }, take: 5 }),
    (db, step) => db.collection.findUnique({ where: { id: step } }),
    (db) => db.link.count({ where: { url: { contains: "u" } } }),
    (db) => db.link.groupBy({ by: ["collectionId"], _sum: { visits: true } }),
    (db) => db.collection.findMany({ include: { links: true }, take: 5 }),
    (db) => db.$queryRaw`select sum(visits)::int from "Link"`,
];

async function readInTurn() {
    for (let step = 0; step < Number(READS); step++) {
        await setTimeout(Number(READS_PAUSE));
        const read = reads[step % reads.length];
        if (READS_OF === "prisma, in $transaction with a function") {
            await prisma.$transaction(async (tx) => await read(tx, step));
        } else if (READS_OF === "prisma, in $transaction with an array") {
            await prisma.$transaction([read(prisma, step), read(prisma, step)]);
        } else {
            await read(prisma, step);
        }
    }
}

/** Reads by the connection that has written, and with a second one by both at once. */
async function writeAndReadBack() {
    let stale = 0;
    for (let step = 0; step < Number(READS); step++) {
        const name = `${READS_DATABASE}, ${READS_CONNECTIONS} connections, ${step}`;
        const { id } = await prisma.collection.create({ data: { name } });
        const { visits } = await prisma.$transaction(async (tx) => {
            const link = await tx.link.create({ data: { url: name, collectionId: id } });
            return tx.link.update({ where: { id: link.id }, data: { visits: { increment: 1 } } });
        });
        for (const pause of [Number(READS_PAUSE), 0]) {
            const read = () => prisma.link.findMany({ where: { url: name } });
            const found = await Promise.all(Array.from({ length: Number(READS_CONNECTIONS) }, read));
            stale += found.filter((links) => links[0]?.visits !== visits).length;
            // Behind the pause a replica has what was written.
            await setTimeout(pause);
        }
    }
    console.log(`stale ${stale}`);
}

await (READS_OF.includes("own writes") ? writeAndReadBack() : readInTurn());
await prisma.$disconnect();
process.exit(0);
