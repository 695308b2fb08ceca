CREATE UNIQUE INDEX "Collection_name_key" ON "Collection"("name");
CREATE INDEX "Link_collectionId_idx" ON "Link"("collectionId");
ALTER TABLE "Link" ADD CONSTRAINT "Link_collectionId_fkey" FOREIGN KEY ("collectionId")
    REFERENCES "Collection"("id") ON DELETE CASCADE ON UPDATE CASCADE;
