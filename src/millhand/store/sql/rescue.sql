-- Rescue of jobs whose worker host is gone.

-- name: pull_back_leases
-- After the database's clock was set back, leases taken before it end too late by as much: have them end one lease from
-- now on. A host that lives renews its own with the next ping; one that died before is found out.
-- $1 now
update worker_host
   set lease_expires_at = coalesce($1::timestamptz, now()) + (lease_expires_at - pinged_at),
       pinged_at = coalesce($1::timestamptz, now())
 where pinged_at > coalesce($1::timestamptz, now()) + interval '1 s'
returning incarnation

-- name: pull_back_starts
-- What runs has begun now, not later: how long it has run is asked when looking for claims that a host never heard of.
-- Index job_queue_held_idx. $1 now
update job_queue
   set started_at = coalesce($1::timestamptz, now())
  from (select id
          from job_queue
         where state = 'running' and started_at > coalesce($1::timestamptz, now())
         order by id
           for update skip locked) as ahead
 where job_queue.id = ahead.id

-- name: rescue_jobs
-- Take the jobs of dead hosts away from them, and strike these hosts off, in one statement and one commit.
-- A job is lost when its incarnation is not among the live ones, never by a join with a row that may be gone.
-- A host's row is locked first: a heartbeat comes before this, and then the host lives, or after it, and finds no row.
-- Index job_queue_held_idx.
-- $1 how often a job may be rescued, $2 whether to rescue at all, $3 result of jobs given up, $4 limit, $5 now
with dead as materialized (
  select incarnation
    from worker_host
   where lease_expires_at < coalesce($5::timestamptz, now())
   order by incarnation
     for update skip locked
), lost as materialized (
  select job_queue.id, job_queue.worker, job_queue.n_lost, job_queue.canceled_by, job_queue.awaited, job_queue.tag,
         coalesce(job_queue.progress, 0) as progress
    from job_queue
   where job_queue.state = 'running'
     and not exists (select from worker_host as host
                      where host.incarnation = job_queue.incarnation
                        and not exists (select from dead where dead.incarnation = host.incarnation))
   order by job_queue.id
   limit $4
     for update of job_queue skip locked
), fate as materialized (
  select lost.*,
         case when lost.canceled_by is not null then 'canceled'
              when job.restart_unless_cancelled then 'requeued'
              when $2::bool and lost.n_lost < $1 then 'requeued'
              else 'failed' end as fate
    from lost
    left join job on job.id = lost.id
), requeued as (
  update job_queue
     set state = 'queued', n_lost = job_queue.n_lost + 1, incarnation = null, worker = null, started_at = null,
         progress = null
    from fate
   where job_queue.id = fate.id and fate.fate = 'requeued'
), gone as (
  delete from job_queue
   using fate
   where job_queue.id = fate.id and fate.fate <> 'requeued'
  returning job_queue.*
), recorded as (
  insert into job_completed (id, workspace_id, status, started_at, completed_at, duration_ms, result, worker, attempt,
                             memory_peak_kb, canceled_by, canceled_reason)
  select gone.id, gone.workspace_id, case when gone.canceled_by is null then 'failure' else 'canceled' end::job_status,
         gone.started_at, coalesce($5::timestamptz, now()),
         greatest(extract(epoch from coalesce($5::timestamptz, now()) - gone.started_at) * 1000, 0)::bigint,
         case when gone.canceled_by is null then $3::json
              else json_build_object('error', json_build_object(
                'name', 'Canceled', 'message', 'Job canceled by ' || gone.canceled_by,
                'reason', gone.canceled_reason, 'canceler', gone.canceled_by)) end,
         gone.worker, gone.attempt + 1, coalesce(gone.memory_peak_kb, 0), gone.canceled_by, gone.canceled_reason
    from gone
), pruned as (
  delete from worker_host using dead where worker_host.incarnation = dead.incarnation
)
select id, worker, n_lost + 1 as n_lost, fate, awaited, tag from fate
