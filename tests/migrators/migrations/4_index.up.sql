create index accounts_owner on accounts (owner);
insert into applied values (4);
