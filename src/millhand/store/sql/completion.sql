-- How attempts end and what follows from it.

-- name: complete_jobs
-- Move jobs from the queue to the record, as far as this host still holds that attempt of them; one commit for all.
-- A row that was canceled meanwhile keeps by whom. `rerun` tells which of them start again: not the canceled ones.
-- Each report finds its row by the primary key of job_queue. `state::text` keeps the planner from the index of running
-- jobs, which looks better to it while few are running, and has it read all of them for every report (measured: 130 ms
-- instead of 4 for a batch of 500).
-- With $14 those that somebody waits for are announced in the same commit, short results with it: who waits needs not ask.
-- $1 ids, $2 attempts, $3 statuses, $4 results, $5 durations in ms, $6 peaks in kB, $7 labels (each a JSON array),
-- $8 canceled by, $9 for what reason, $10 incarnation, $11 now, $12 rests of their logs, $13 lengths of these in UTF-16
-- units, $14 whether to announce
with report as (
  select *
    from unnest($1::uuid[], $2::int[], $3::text[], $4::json[], $5::bigint[], $6::int[], $7::text[], $8::text[], $9::text[],
                $12::text[], $13::bigint[])
      as row(id, attempt, status, result, duration_ms, memory_peak_kb, labels, canceled_by, canceled_reason,
             log, log_units)
), ended as (
  delete from job_queue
   using report
   where job_queue.id = report.id and job_queue.attempt = report.attempt
     and job_queue.incarnation = $10 and job_queue.state::text = 'running'
  returning report.id, job_queue.workspace_id, report.status, job_queue.started_at, report.duration_ms, report.result,
            job_queue.worker, report.attempt, report.memory_peak_kb,
            coalesce(report.canceled_by, job_queue.canceled_by) as canceled_by,
            coalesce(report.canceled_reason, job_queue.canceled_reason) as canceled_reason,
            report.labels, report.log, report.log_units, job_queue.awaited
), said as (
  insert into job_log (job_id, seq, start_at, end_at, text)
  select ended.id, coalesce(last.seq + 1, 0), coalesce(last.end_at, 0), coalesce(last.end_at, 0) + ended.log_units,
         ended.log
    from ended
    left join lateral (
      select seq, end_at from job_log where job_log.job_id = ended.id order by seq desc limit 1) as last on true
   where ended.log is not null
), recorded as (
  insert into job_completed (id, workspace_id, status, started_at, completed_at, duration_ms, result, worker, attempt,
                             memory_peak_kb, canceled_by, canceled_reason, labels)
  select id, workspace_id, status::job_status, started_at, coalesce($11::timestamptz, now()), duration_ms, result, worker,
         attempt, memory_peak_kb, canceled_by, canceled_reason,
         case when labels is not null then array(select json_array_elements_text(labels::json)) end
    from ended
)
select id, awaited, canceled_by is not null as canceled,
       case when awaited and $14 then
         pg_notify('millhand_watch', case when octet_length(result::text) > 7000 then 'd:' || id
                                          else 'r:' || id || ':' || status || ':' || result::text end)
       end as told
  from ended

-- name: recorded_attempts
-- Which of these attempts are in the record already, because an earlier answer was lost on its way. An end that the
-- server decided (a forced cancel, a job given up) is recorded with the next attempt's number and is not among them.
-- $1 ids, $2 attempts
select job_completed.id
  from unnest($1::uuid[], $2::int[]) as given(id, attempt)
  join job_completed on job_completed.id = given.id and job_completed.attempt = given.attempt

-- name: cache_results
-- $1 keys, $2 results, $3 seconds to keep each, $4 now
insert into result_cache (key, result, expires_at)
select distinct on (key) key, result, coalesce($4::timestamptz, now()) + make_interval(secs => ttl_s)
  from unnest($1::text[], $2::json[], $3::int[]) as row(key, result, ttl_s)
 order by key
on conflict (key) do update set result = excluded.result, expires_at = excluded.expires_at

-- name: rerun_jobs
-- Push perpetual jobs again under new ids, each at most once per 10 s.
-- $1 ended ids, $2 new ids, $3 now
with again as (
  select given.new_id, job.*, completed.started_at
    from unnest($1::uuid[], $2::uuid[]) as given(old_id, new_id)
    join job on job.id = given.old_id
    join job_completed as completed on completed.id = given.old_id
), due as (
  select again.*,
         greatest(coalesce($3::timestamptz, now()), again.started_at + interval '10 s') as due_at
    from again
), payload as (
  insert into job (id, workspace_id, kind, created_at, created_by, permissioned_as, email, tag, priority, scheduled_for,
                   runnable_path, runnable_hash, raw_code, raw_lock, language, entrypoint, args, timeout_s, cache_ttl_s,
                   parent_job, root_job, flow_step_id, trigger, trigger_kind, visible_to_owner, delete_after_use,
                   restart_unless_cancelled)
  select new_id, workspace_id, kind, coalesce($3::timestamptz, now()), created_by, permissioned_as, email, tag, priority,
         due_at, runnable_path, runnable_hash, raw_code, raw_lock, language, entrypoint, args, timeout_s, cache_ttl_s,
         parent_job, root_job, flow_step_id, trigger, trigger_kind, visible_to_owner, delete_after_use,
         restart_unless_cancelled
    from due
), queued as (
  insert into job_queue (id, workspace_id, tag, priority, scheduled_for, state)
  select new_id, workspace_id, tag, priority, due_at,
         case when due_at > coalesce($3::timestamptz, now()) then 'scheduled' else 'queued' end::job_state
    from due
  returning tag, state
)
select distinct tag from queued where state = 'queued'

-- name: erase_args
-- The arguments of awaited jobs become JSON null: erased, and the rest follows when the result was delivered.
-- $1 ids
update job set args = 'null' where id = any($1::uuid[])

-- name: erase_jobs
-- Erase what jobs with `delete_after_use` left: arguments, result, log and stream. $1 ids
with payload as (
  update job set args = null where id = any($1::uuid[])
), record as (
  update job_completed set result = null where id = any($1::uuid[])
), log as (
  delete from job_log where job_id = any($1::uuid[])
), stream as (
  delete from job_stream where job_id = any($1::uuid[])
)
select

-- name: list_undelivered
-- Jobs whose result nobody fetched in time although it was to be erased after use. Index job_erase_idx.
-- $1 seconds, $2 limit, $3 now
select job.id
  from job
  join job_completed as completed on completed.id = job.id
 where job.delete_after_use and job.args is not null
   and completed.completed_at < coalesce($3::timestamptz, now()) - make_interval(secs => $1)
 limit $2

-- name: cached_result
-- $1 key, $2 now
select result from result_cache where key = $1 and expires_at > coalesce($2::timestamptz, now())

-- name: delete_expired_results
-- Index result_cache_expiry_idx. $1 limit, $2 now
delete from result_cache
 where key = any(array(select key from result_cache where expires_at <= coalesce($2::timestamptz, now())
                        order by expires_at limit $1))
