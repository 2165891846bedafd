-- Nudges.

-- name: notify
-- Never in a transaction that writes: NOTIFY has all commits wait for each other. $1 channels, $2 payloads
select pg_notify(channel, payload) from unnest($1::text[], $2::text[]) as message(channel, payload)
