create function total() returns numeric language sql stable as 'select sum(balance) from accounts';
do $$
begin
    if total() <> 5050 then
        raise exception 'the balances are wrong: %', total();
    end if;
end
$$;
insert into applied values (3);
