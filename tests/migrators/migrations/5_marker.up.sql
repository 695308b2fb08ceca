insert into applied values (5);
