//! What stands in both databases before the first sequence.

/// Once for the server: roles and everything in `app`, of which every database is a copy.
pub(super) const TEMPLATE: &str = r#"
create role boss; create role stranger; grant boss to app;
create table accounts (id int primary key, owner text);
insert into accounts values (1, 'real'), (2, 'second');
create table parents (id int primary key); insert into parents values (1);
create table notes (id int, parent int references parents deferrable initially deferred);
create sequence numbers;
grant select on accounts, parents to public;
grant all on notes to public; grant usage on sequence numbers to public;
create schema other; grant usage on schema other to public;
create table other.accounts (id int, owner text); insert into other.accounts values (9, 'other');
grant select on other.accounts to public;

-- Own functions in front of pg_catalog.
create schema own; grant usage on schema own to public;
create function own.set_config(text, text, boolean) returns text language plpgsql as
  $$begin perform pg_catalog.set_config('app.x', 'own', false); return 'own'; end$$;
create function public.set_config(text, varchar, boolean) returns text language plpgsql as
  $$begin perform pg_catalog.set_config('role', 'boss', false); return 'public'; end$$;

create procedure set_commit(v text) language plpgsql as
  $$begin perform pg_catalog.set_config('app.tenant', v, false); commit; end$$;
create procedure set_rollback(v text) language plpgsql as
  $$begin perform pg_catalog.set_config('app.tenant', v, false); rollback; end$$;
create procedure set_half(v text) language plpgsql as
  $$begin perform pg_catalog.set_config('app.tenant', v, false); commit;
  perform pg_catalog.set_config('app.x', v, false); perform 1/0; end$$;
create procedure set_role() language plpgsql as $$begin set role boss; commit; reset role; end$$;
create procedure lock_commit(k bigint) language plpgsql as
  $$begin perform pg_advisory_lock(k); commit; perform pg_advisory_xact_lock(k + 1); end$$;

-- What no text shows.
create function f_set(n text, v text) returns text language plpgsql as
  $$begin return pg_catalog.set_config(n, v, false); end$$;
create function f_immutable(v text) returns text immutable language plpgsql as
  $$begin return pg_catalog.set_config('app.x', v, false); end$$;
create function f_role() returns int language plpgsql as $$begin set role boss; return 1; end$$;
create function f_lock(k bigint) returns int language plpgsql as
  $$begin perform pg_advisory_lock(k); return 1; end$$;
create function f_unlock() returns int language plpgsql as
  $$begin perform pg_advisory_unlock_all(); return 1; end$$;
create function f_temp() returns int language plpgsql as
  $$begin create temp table if not exists hidden (a int); return 1; end$$;
create function f_drop() returns int language plpgsql as
  $$begin drop table if exists pg_temp.hidden; return 1; end$$;
create function f_listen() returns int language plpgsql as $$begin listen news; return 1; end$$;
create function f_prepare() returns int language plpgsql as
  $$begin execute 'prepare d3 as select 1'; return 1; end$$;
create function f_forget() returns int language plpgsql as
  $$begin execute 'deallocate all'; return 1; end$$;
create function f_hold() returns int language plpgsql as
  $$begin execute 'declare c1 cursor with hold for select 1'; return 1; end$$;
create function f_local() returns int language sql set work_mem = '3MB' as $$select 1$$;
create function f_caught() returns int language plpgsql as $$begin
  begin perform pg_catalog.set_config('app.x', 'caught', false); perform 1/0;
  exception when others then return 0; end; end$$;
create view v_set as select pg_catalog.set_config('app.x', 'view', false) as x;
create table triggered (a int); grant all on triggered to public;
create function f_trigger() returns trigger language plpgsql as
  $$begin perform pg_catalog.set_config('app.tenant', 'trigger', false); return null; end$$;
create trigger t before insert on triggered for each row execute function f_trigger();
create table guarded (a int); insert into guarded values (1); grant all on guarded to public;
alter table guarded enable row level security;
create policy p on guarded using (pg_catalog.set_config('app.x', 'policy', false) <> '');
create schema operators; grant usage on schema operators to public;
create function operators.equal(text, text) returns boolean language plpgsql as
  $$begin perform pg_catalog.set_config('app.x', 'operator', false); return true; end$$;
create operator operators.= (leftarg = text, rightarg = text, function = operators.equal);
create function operators.lower(text) returns text language plpgsql as
  $$begin perform pg_catalog.set_config('app.x', 'lower', false); return 'own'; end$$;
grant select on v_set to public;
"#;

/// What takes back the data that a sequence left.
pub(super) const CLEAN: &str = "delete from notes; select setval('numbers', 1, false)";
/// The words of a script that leaves data.
pub(super) const LEAVES_DATA: [&str; 2] = ["into notes", "nextval"];
/// Makes a connection's temporary schema: where there is none yet, names in it are refused
/// otherwise.
pub(super) const WARM: &str = "create type pg_temp.warm as enum (); drop type pg_temp.warm";
