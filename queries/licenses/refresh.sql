-- Tells the channel $1 that what the licenses allow is to be worked out again.
SELECT pg_notify($1, 'refresh')
