-- Logs on their way to object storage: reserve a name, upload, then exchange rows for the object in one transaction.
-- In the order job_log, log_object, as all statements lock them.

-- name: list_borders
-- Rows at which an object may end, with the first row of the log that is still in the database. The end of each log
-- stays. Index job_log_border_idx; primary key of job_log gives first and last row. $1 limit, $2 units to keep
select border.job_id, border.seq, border.end_at, head.seq as first_seq, head.start_at as first_at
  from job_log as border
 cross join lateral (
   select end_at from job_log where job_id = border.job_id order by seq desc limit 1) as last
 cross join lateral (
   select seq, start_at from job_log where job_id = border.job_id order by seq limit 1) as head
 where border.start_at >> 20 < border.end_at >> 20 and border.end_at + $2::bigint <= last.end_at
 order by border.job_id, border.seq
 limit $1

-- name: reserve
-- Name an object before it is uploaded; unless it becomes part of its log in time it is deleted. No row where it is
-- part of it already. $1 job id, $2 start, $3 end, $4 key, $5 seconds, $6 now
insert into log_object (job_id, start_at, end_at, key, delete_at)
values ($1, $2, $3, $4, coalesce($6::timestamptz, now()) + make_interval(secs => $5))
on conflict (job_id, start_at, end_at) do update set key = excluded.key, delete_at = excluded.delete_at
 where log_object.delete_at is not null
returning job_id

-- name: read_rows
-- The rows of a piece. Primary key. $1 job id, $2 first row, $3 last row
select text from job_log where job_id = $1 and seq between $2 and $3 order by seq

-- name: delete_rows
-- Delete the rows that an object holds; returns how many. Primary key. $1 job id, $2 first row, $3 last row
with gone as (
  delete from job_log where job_id = $1 and seq between $2 and $3 returning seq
)
select count(*) from gone

-- name: keep
-- Make a reserved object part of its log; no row where the reservation ran out. Primary key.
-- $1 job id, $2 start, $3 end
update log_object set delete_at = null
 where job_id = $1 and start_at = $2 and end_at = $3 and delete_at is not null
returning job_id

-- name: abandon
-- Have an object deleted that was uploaded for nothing, unless another leader made it part of its log.
-- $1 job id, $2 start, $3 end, $4 key, $5 now
insert into log_object (job_id, start_at, end_at, key, delete_at)
values ($1, $2, $3, $4, coalesce($5::timestamptz, now()))
on conflict (job_id, start_at, end_at) do update set delete_at = excluded.delete_at
 where log_object.delete_at is not null

-- name: doom_left_behind
-- Have the objects of jobs deleted that went with their day's partition; returns how many there were.
-- Primary keys of log_object and job. $1 first id of the oldest day that may still be there, $2 limit, $3 now
with left_behind as (
  select job_id, start_at, end_at from log_object
   where job_id < $1 and delete_at is null and not exists (select from job where job.id = log_object.job_id)
   limit $2
), doomed as (
  update log_object set delete_at = coalesce($3::timestamptz, now())
    from left_behind
   where log_object.job_id = left_behind.job_id and log_object.start_at = left_behind.start_at
     and log_object.end_at = left_behind.end_at
)
select count(*) from left_behind

-- name: lock_doomed
-- Objects whose time has come, locked while they are deleted: nobody reserves one meanwhile.
-- Index log_object_delete_idx. $1 limit, $2 now
select job_id, start_at, end_at, key from log_object
 where delete_at <= coalesce($2::timestamptz, now())
 order by delete_at limit $1
   for update skip locked

-- name: forget
-- $1 job ids, $2 starts, $3 ends
delete from log_object
 using unnest($1::uuid[], $2::bigint[], $3::bigint[]) as gone(job_id, start_at, end_at)
 where log_object.job_id = gone.job_id and log_object.start_at = gone.start_at and log_object.end_at = gone.end_at
