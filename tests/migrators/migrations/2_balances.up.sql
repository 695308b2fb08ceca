begin;
set local lock_timeout = '5s';
alter table accounts add column balance numeric not null default 0;
insert into accounts (owner, balance) select 'owner ' || n, n from generate_series(1, 100) n;
insert into applied values (2);
commit;
