-- Shared by the small and the large organization; gone with the session.

-- The ids of everything a person may want to type have one prefix, the kind of thing, and a number.
CREATE OR REPLACE FUNCTION pg_temp.demo_id(kind text, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
AS $$ SELECT ('c0de0000-' || kind || '-4000-8000-' || lpad(number::text, 12, '0'))::uuid $$;

-- Spreads numbers over 0 to 33,554,431. The lowest bits of a product hardly vary, so they go.
CREATE OR REPLACE FUNCTION pg_temp.demo_hash(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
AS $$ SELECT ((number % 1000000007 * 2654435761) % 4294967296) >> 7 $$;
