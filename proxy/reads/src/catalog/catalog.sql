WITH
-- The expressions that the database stores, with what they belong to.
stored (class, object, expression) AS (
    SELECT 'view', r.ev_class, r.ev_action::text
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE c.relkind = 'v' AND c.oid >= 16384
    UNION ALL
    SELECT 'policy', polrelid, concat(polqual::text, polwithcheck::text) FROM pg_policy
    UNION ALL
    SELECT 'type', contypid, conbin::text FROM pg_constraint WHERE contypid >= 16384
    UNION ALL
    SELECT 'default', oid, proargdefaults::text FROM pg_proc WHERE proargdefaults IS NOT NULL
),
-- current_setting('app.tenant') is left out: a setting with a point in its name is the session's,
-- which pgimbal brings to whatever server it runs on. 2077 and 3294 are the function's OIDs. The name
-- is a constant of type text (25): four bytes of its length, and a point (46) among the others.
calls (class, object, called) AS (
    SELECT DISTINCT s.class, s.object, m[1]::oid
    FROM stored s,
        regexp_replace(
            s.expression,
            ':funcid (?:2077|3294) [^{}]*[{]CONST :consttype 25 [^][{}]*'
                ':constvalue [0-9]+ [[] (?:[0-9]+ ){4}(?:[0-9]+ )*46 (?:[0-9]+ )*[]][}]',
            '', 'g'
        ) AS others,
        regexp_matches(others, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') m
),
type_calls (type, called) AS (
    SELECT object, called FROM calls WHERE class = 'type'
    UNION
    SELECT t.oid, f
    FROM pg_type t, unnest(ARRAY[t.typinput::oid, t.typoutput::oid, t.typmodin::oid]) f
    WHERE t.oid >= 16384 AND f >= 16384
    UNION
    SELECT t, c.castfunc
    FROM pg_cast c, unnest(ARRAY[c.castsource, c.casttarget]) t
    WHERE c.oid >= 16384 AND c.castfunc <> 0
),
-- What a view or a policy reads, and the children of a table.
reads (relation, read) AS (
    SELECT DISTINCT s.object, m[1]::oid
    FROM stored s, regexp_matches(s.expression, ':relid ([0-9]+)', 'g') m
    WHERE s.class IN ('view', 'policy')
    UNION
    SELECT i.inhparent, i.inhrelid
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent
    WHERE c.relkind IN ('r', 'p')
),
-- What a type is made of: that of a domain, an array, a row.
made_of (type, part) AS (
    SELECT oid, typbasetype FROM pg_type WHERE oid >= 16384 AND typbasetype >= 16384
    UNION
    SELECT oid, typelem FROM pg_type WHERE oid >= 16384 AND typelem >= 16384
    UNION
    SELECT t.oid, a.atttypid
    FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
    WHERE t.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
),
-- Volatile functions; those that neither PostgreSQL nor an extension brought are the database's own.
volatile (oid, name, is_own) AS (
    SELECT p.oid, p.proname::text, p.oid >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    )
    FROM pg_proc p
    WHERE p.provolatile = 'v'
        OR p.oid IN (
            SELECT a.aggfnoid::oid
            FROM pg_aggregate a
            CROSS JOIN unnest(ARRAY[
                a.aggtransfn::oid, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggmfinalfn
            ]) step
            JOIN pg_proc s ON s.oid = step
            WHERE s.provolatile = 'v' AND s.oid >= 16384
        )
)
SELECT DISTINCT 'function' AS kind, proname::text AS name, '' AS via FROM pg_proc
UNION ALL
SELECT DISTINCT CASE WHEN is_own THEN 'own_volatile' ELSE 'volatile' END, name, '' FROM volatile
UNION ALL
SELECT DISTINCT 'row_function', v.name, ''
FROM volatile v JOIN pg_proc p USING (oid) JOIN pg_type t ON t.oid = p.proargtypes[0]
WHERE p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1
    AND (t.typtype = 'c' OR t.typname IN ('record', 'any', 'anyelement', 'anynonarray',
        'anycompatible', 'anycompatiblenonarray'))
UNION ALL
SELECT DISTINCT 'operator', o.oprname::text, p.proname::text
FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
WHERE o.oid >= 16384
UNION ALL
SELECT DISTINCT 'unlogged', relname::text, '' FROM pg_class
WHERE relpersistence = 'u' AND relkind IN ('r', 'p', 'm', 'S')
UNION ALL
SELECT DISTINCT CASE relkind WHEN 'f' THEN 'foreign' ELSE 'sequence' END, relname::text, ''
FROM pg_class WHERE relkind IN ('f', 'S')
UNION ALL
SELECT DISTINCT c.class, r.relname::text, p.proname::text
FROM calls c JOIN pg_class r ON r.oid = c.object JOIN pg_proc p ON p.oid = c.called
WHERE c.class IN ('view', 'policy')
UNION ALL
SELECT DISTINCT 'reads', a.relname::text, b.relname::text
FROM reads x JOIN pg_class a ON a.oid = x.relation JOIN pg_class b ON b.oid = x.read
WHERE a.oid <> b.oid
UNION ALL
SELECT DISTINCT 'default', f.proname::text, p.proname::text
FROM calls c JOIN pg_proc f ON f.oid = c.object JOIN pg_proc p ON p.oid = c.called
WHERE c.class = 'default'
UNION ALL
SELECT DISTINCT 'type', t.typname::text, p.proname::text
FROM type_calls c JOIN pg_type t ON t.oid = c.type JOIN pg_proc p ON p.oid = c.called
UNION ALL
SELECT DISTINCT 'part', t.typname::text, p.typname::text
FROM made_of m JOIN pg_type t ON t.oid = m.type JOIN pg_type p ON p.oid = m.part
