-- What goes when its time is over, row by row. Whole days go by their partitions (`partitions.sql`).

-- name: cutoff
-- Before when jobs are past retention. Of two clocks the one behind counts: none that is ahead by mistake deletes anything.
-- $1 seconds, $2 the time by the clock of this process, $3 now
select least(coalesce($3::timestamptz, now()), $2::timestamptz) - make_interval(secs => $1)

-- name: delete_jobs
-- Delete jobs that ended before $1, at most $2 of them, with all they left.
-- Ids bear the time of the push: only partitions before $1 are looked at, and the default one with its foreign ids.
-- $1 time, $2 limit, $3 first id of that time
with old as materialized (
  (select id from job_completed where completed_at < $1 and id < $3 limit $2)
  union
  (select id from job_completed_default where completed_at < $1 limit $2)
), log as (
  delete from job_log where job_id in (select id from old)
), stream as (
  delete from job_stream where job_id in (select id from old)
), payload as (
  delete from job where id in (select id from old)
), record as (
  delete from job_completed where id in (select id from old)
)
select id from old

-- name: delete_expired_tokens
-- $1 limit, $2 now
delete from token
 where token_hash = any(array(select token_hash from token
                               where expiration < coalesce($2::timestamptz, now()) limit $1))
