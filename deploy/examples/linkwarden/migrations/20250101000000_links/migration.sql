CREATE TABLE "Collection" (
    "id" SERIAL NOT NULL,
    "name" TEXT NOT NULL,
    CONSTRAINT "Collection_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "Link" (
    "id" SERIAL NOT NULL,
    "url" TEXT NOT NULL,
    "visits" INTEGER NOT NULL DEFAULT 0,
    "collectionId" INTEGER NOT NULL,
    CONSTRAINT "Link_pkey" PRIMARY KEY ("id")
);
