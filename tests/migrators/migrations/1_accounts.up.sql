create table accounts (id bigint generated always as identity primary key, owner text not null);
create table applied (version int not null);
insert into applied values (1);
