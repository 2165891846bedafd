-- Cancels: what a person or the server decides about jobs that have not ended.

-- name: cancel_jobs
-- Cancel jobs and all their descendants. One that no worker holds ends here and now; one that runs is marked, and its
-- worker told after the commit, or, where forced, ends here and now as well. Locks in the order of ids.
-- An end that is decided here takes the next attempt's number, so that no report of a worker is taken for it.
-- $1 ids, $2 workspace (null: any), $3 by, $4 reason, $5 result, $6 force, $7 now
with recursive family(id) as (
  select job_queue.id
    from job_queue
   where job_queue.id = any($1::uuid[]) and ($2::text is null or job_queue.workspace_id = $2)
  union
  select job.id from family join job on job.parent_job = family.id
), held as materialized (
  select job_queue.id, job_queue.state = 'running' and not $6::bool as told, job_queue.awaited
    from job_queue
    join family on family.id = job_queue.id
   order by job_queue.id
     for update of job_queue
), told as (
  update job_queue
     set canceled_by = coalesce(canceled_by, $3), canceled_reason = coalesce(canceled_reason, $4)
    from held
   where job_queue.id = held.id and held.told
  returning job_queue.id
), gone as (
  delete from job_queue
   using held
   where job_queue.id = held.id and not held.told
  returning job_queue.*
), recorded as (
  insert into job_completed (id, workspace_id, status, started_at, completed_at, duration_ms, result, worker, attempt,
                             memory_peak_kb, canceled_by, canceled_reason)
  select id, workspace_id, 'canceled', started_at, coalesce($7::timestamptz, now()),
         coalesce(extract(epoch from coalesce($7::timestamptz, now()) - started_at) * 1000, 0)::bigint,
         $5::json, worker, attempt + 1, coalesce(memory_peak_kb, 0), $3, $4
    from gone
)
select held.id, held.told, held.awaited, gone.state = 'running' as was_running
  from held
  left join gone on gone.id = held.id

-- name: list_perpetual
-- Unended jobs of a script that restarts unless canceled. Index job_path_idx. $1 workspace, $2 path
select job.id
  from job
  join job_queue on job_queue.id = job.id
 where job.workspace_id = $1 and job.runnable_path = $2 and job.restart_unless_cancelled

-- name: job_state
-- $1 id, $2 workspace
select coalesce(
  (select 'unended' from job_queue where id = $1 and workspace_id = $2),
  (select 'ended' from job_completed where id = $1 and workspace_id = $2))
