-- Leadership among servers.

-- name: try_to_lead
-- Held until the session ends; false where another session has it.
select pg_try_advisory_lock(hashtext('millhand.leader'))
