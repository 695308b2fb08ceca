create index item_by_owner on item (owner);
