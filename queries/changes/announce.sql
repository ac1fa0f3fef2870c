-- Tells every process that listens on the channel $1 of each of the texts $2.
SELECT pg_notify($1, text) FROM unnest($2::text[]) AS text
