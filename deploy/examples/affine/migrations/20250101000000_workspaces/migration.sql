CREATE TABLE "Workspace" (
    "id" TEXT NOT NULL,
    "public" BOOLEAN NOT NULL DEFAULT false,
    CONSTRAINT "Workspace_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "Update" (
    "workspace_id" TEXT NOT NULL,
    "number" INTEGER NOT NULL,
    "blob" BYTEA NOT NULL,
    CONSTRAINT "Update_pkey" PRIMARY KEY ("workspace_id", "number")
);
ALTER TABLE "Update" ADD CONSTRAINT "Update_workspace_id_fkey" FOREIGN KEY ("workspace_id")
    REFERENCES "Workspace"("id") ON DELETE CASCADE ON UPDATE CASCADE;
