-- Daily partitions of the tables that only grow. The bounds are ids: a UUIDv7 starts with its time.

-- name: database_time
select now()

-- name: try_lock
-- One process at a time changes partitions; the others leave it to that one.
select pg_try_advisory_lock(hashtext('millhand.partitions'))

-- name: unlock
select pg_advisory_unlock(hashtext('millhand.partitions'))

-- name: wait_briefly
-- DDL on a parent table waits for its readers while all others wait behind it: give up soon, try again later.
set local lock_timeout = '2s'

-- name: list_partitions
-- $1 names of the parent tables. Index pg_inherits_parent_index.
select parent.relname as parent, child.relname as name
  from pg_inherits
  join pg_class as parent on parent.oid = inhparent
  join pg_class as child on child.oid = inhrelid
 where parent.relname = any($1::text[]) and parent.relnamespace = current_schema()::regnamespace
 order by 1, 2

-- name: lock_tables
-- Nobody reads or writes these tables until the transaction ends. In the order in which all statements lock them.
lock table job, job_completed, job_log, job_stream in access exclusive mode

-- name: is_in_use
-- Whether ids from $1 up to $2 (exclusive) have jobs that have not ended, or that ended after $3.
-- Primary key of job_queue; job_completed_time_idx.
select exists (select from job_queue where id >= $1 and id < $2)
    or exists (select from job_completed where id >= $1 and id < $2 and completed_at > $3)
