-- Jobs as people see them: the payload, with its queue row while it waits or runs, with its record once it has ended.

-- name: get_job
-- $1 workspace, $2 id, $3 with arguments, $4 with code, $5 with the result. Primary keys.
select job.id, job.workspace_id, job.kind, job.created_at, job.created_by, job.permissioned_as, job.email, job.tag,
       job.priority, coalesce(q.scheduled_for, job.scheduled_for) as scheduled_for, job.runnable_path,
       job.runnable_hash, case when $4 then job.raw_code end as raw_code, case when $4 then job.raw_lock end as raw_lock,
       job.language, job.timeout_s, job.parent_job, job.root_job, job.flow_step_id, job.trigger, job.trigger_kind,
       job.visible_to_owner, case when $3 then job.args end as args,
       q.state, q.progress, coalesce(q.worker, c.worker) as worker, coalesce(q.started_at, c.started_at) as started_at,
       coalesce(q.attempt, c.attempt) as attempt, coalesce(q.memory_peak_kb, c.memory_peak_kb) as memory_peak_kb,
       coalesce(q.canceled_by, c.canceled_by) as canceled_by,
       coalesce(q.canceled_reason, c.canceled_reason) as canceled_reason,
       c.status, c.completed_at, c.duration_ms, c.labels, coalesce(c.deleted, false) as deleted,
       case when $5 then c.result end as result
  from job
  left join job_queue as q on q.id = job.id
  left join job_completed as c on c.id = job.id
 where job.id = $2 and job.workspace_id = $1

-- name: plan_each_time
-- The filters of lists are mostly absent; only a plan made for the values at hand uses the right index.
set local plan_cache_mode = 'force_custom_plan'

-- name: find_jobs
-- Jobs that fit a filter, newest first (or oldest, where $11). Ordered by id, which is ordered by time of creation.
-- Indexes job_workspace_idx, job_path_idx, job_parent_idx; job_queue_pkey for those in the queue.
-- The filter is read field by field, so that the planner sees constants: what is absent costs nothing and misleads nobody.
-- Lists in it are texts with a unit separator between their values.
-- $1 workspace (null: all), $2 filter (json, see JobFilter), $3 exact path, $4 parent, $5 only those in the queue,
-- $6 only ended ones, $7 before this id, $8 with arguments, $9 limit, $10 offset, $11 oldest first
select job.id, job.workspace_id, job.kind, job.created_at, job.created_by, job.permissioned_as, job.email, job.tag,
       job.priority, coalesce(q.scheduled_for, job.scheduled_for) as scheduled_for, job.runnable_path,
       job.runnable_hash, null::text as raw_code, null::text as raw_lock,
       job.language, job.timeout_s, job.parent_job, job.root_job, job.flow_step_id, job.trigger, job.trigger_kind,
       job.visible_to_owner,
       case when not $8 then null
            when pg_column_size(job.args) > 20000 then '"WINDMILL_TOO_BIG"'::json
            else job.args end as args,
       q.state, q.progress, coalesce(q.worker, c.worker) as worker, coalesce(q.started_at, c.started_at) as started_at,
       coalesce(q.attempt, c.attempt) as attempt, coalesce(q.memory_peak_kb, c.memory_peak_kb) as memory_peak_kb,
       coalesce(q.canceled_by, c.canceled_by) as canceled_by,
       coalesce(q.canceled_reason, c.canceled_reason) as canceled_reason,
       c.status, c.completed_at, c.duration_ms, c.labels, coalesce(c.deleted, false) as deleted, null::json as result
  from job
  left join job_queue as q on q.id = job.id
  left join job_completed as c on c.id = job.id
 where ($1::text is null or job.workspace_id = $1)
   and ($3::text is null or job.runnable_path = $3)
   and ($4::uuid is null or job.parent_job = $4)
   and (not $5 or q.id is not null)
   and (not $6 or c.id is not null)
   and ($7::uuid is null or job.id < $7)
   and (q.id is not null or c.id is not null)
   and ($2::json ->> 'created_by' is null
        or job.created_by like any(string_to_array($2::json ->> 'created_by', chr(31))))
   and ($2::json ->> 'not_created_by' is null
        or not job.created_by like any(string_to_array($2::json ->> 'not_created_by', chr(31))))
   and ($2::json ->> 'label' is null
        or exists (select from unnest(c.labels) as l (label) where l.label like any(string_to_array($2::json ->> 'label', chr(31)))))
   and ($2::json ->> 'not_label' is null
        or not exists (select from unnest(c.labels) as l (label) where l.label like any(string_to_array($2::json ->> 'not_label', chr(31)))))
   and ($2::json ->> 'worker' is null
        or coalesce(q.worker, c.worker) like any(string_to_array($2::json ->> 'worker', chr(31))))
   and ($2::json ->> 'not_worker' is null
        or not coalesce(coalesce(q.worker, c.worker) like any(string_to_array($2::json ->> 'not_worker', chr(31))), false))
   and ($2::json ->> 'tag' is null or job.tag like any(string_to_array($2::json ->> 'tag', chr(31))))
   and ($2::json ->> 'not_tag' is null or not job.tag like any(string_to_array($2::json ->> 'not_tag', chr(31))))
   and ($2::json ->> 'kinds' is null or job.kind = any(string_to_array($2::json ->> 'kinds', chr(31))))
   and ($2::json ->> 'not_kinds' is null or job.kind <> all(string_to_array($2::json ->> 'not_kinds', chr(31))))
   and ($2::json ->> 'trigger_kinds' is null
        or job.trigger_kind = any(string_to_array($2::json ->> 'trigger_kinds', chr(31))))
   and ($2::json ->> 'trigger' is null or job.trigger = $2::json ->> 'trigger')
   and ($2::json ->> 'path_start' is null or starts_with(job.runnable_path, $2::json ->> 'path_start'))
   and ($2::json ->> 'script_hash' is null or job.runnable_hash = ($2::json ->> 'script_hash')::bigint)
   and ($2::json ->> 'started_before' is null
        or coalesce(q.started_at, c.started_at) <= ($2::json ->> 'started_before')::timestamptz)
   and ($2::json ->> 'started_after' is null
        or coalesce(q.started_at, c.started_at) >= ($2::json ->> 'started_after')::timestamptz)
   and ($2::json ->> 'created_before' is null or job.created_at <= ($2::json ->> 'created_before')::timestamptz)
   and ($2::json ->> 'created_after' is null or job.created_at >= ($2::json ->> 'created_after')::timestamptz)
   and ($2::json ->> 'completed_before' is null or c.completed_at <= ($2::json ->> 'completed_before')::timestamptz)
   and ($2::json ->> 'completed_after' is null or c.completed_at >= ($2::json ->> 'completed_after')::timestamptz)
   and ($2::json ->> 'running' is null or (coalesce(q.state = 'running', false)) = ($2::json ->> 'running')::boolean)
   and ($2::json ->> 'suspended' is null
        or (coalesce(q.state = 'suspended', false)) = ($2::json ->> 'suspended')::boolean)
   and ($2::json ->> 'due' is null or (q.scheduled_for <= now()) = ($2::json ->> 'due')::boolean)
   and ($2::json ->> 'statuses' is null or c.status::text = any(string_to_array($2::json ->> 'statuses', chr(31))))
   and ($2::json ->> 'is_flow_step' is null
        or (job.flow_step_id is not null) = ($2::json ->> 'is_flow_step')::boolean)
   and ($2::json ->> 'has_parent' is null or (job.parent_job is not null) = ($2::json ->> 'has_parent')::boolean)
   and ($2::json ->> 'scheduled' is null
        or (coalesce(job.trigger_kind = 'schedule', false)) = ($2::json ->> 'scheduled')::boolean)
   and ($2::json -> 'args' is null or json_contains(job.args, ($2::json -> 'args')::jsonb))
   and ($2::json -> 'result' is null or json_contains(c.result, ($2::json -> 'result')::jsonb))
 order by case when not $11 then job.id end desc, case when $11 then job.id end asc
 limit $9 offset $10

-- name: queue_size
-- $1 workspace (null: all)
select count(*) filter (where state = 'queued' and scheduled_for <= now()) as n_waiting,
       count(*) filter (where state = 'suspended') as n_suspended
  from job_queue
 where $1::text is null or workspace_id = $1

-- name: queue_longer_than
-- Whether more than $1 jobs are queued; counts no further.
select count(*) > $1::bigint from (select from job_queue where state = 'queued' limit $1::bigint + 1) as counted

-- name: count_completed
-- $1 workspace (null: all), $2 ended within these seconds (null: ever), $3 only these statuses, $4 only these tags
select count(*)
  from job_completed as c
  join job on job.id = c.id
 where ($1::text is null or c.workspace_id = $1)
   and ($2::float8 is null or c.completed_at > now() - make_interval(secs => $2))
   and ($3::text[] is null or c.status::text = any($3))
   and ($4::text[] is null or job.tag = any($4))

-- name: count_completed_by_tag
-- Index job_completed_time_idx. $1 seconds back, $2 workspace (null: all)
select job.tag, count(*) as count
  from job_completed as c
  join job on job.id = c.id
 where c.completed_at > now() - make_interval(secs => $1::float8) and ($2::text is null or c.workspace_id = $2)
 group by job.tag
 order by job.tag

-- name: position_at
-- How many queued jobs of the workspace were due before a time, plus one. $1 workspace, $2 time
select count(*) + 1
  from job_queue
 where workspace_id = $1 and state in ('queued', 'scheduled') and scheduled_for < $2

-- name: scheduled_for
-- $1 workspace, $2 id. Primary key.
select scheduled_for from job_queue where workspace_id = $1 and id = $2

-- name: started_at
-- In the order asked for; null where a job has not started. $1 workspace, $2 ids. Primary keys.
select coalesce(q.started_at, c.started_at) as started_at
  from unnest($2::uuid[]) with ordinality as asked (id, nr)
  left join job_queue as q on q.id = asked.id and q.workspace_id = $1
  left join job_completed as c on c.id = asked.id and c.workspace_id = $1
 order by asked.nr

-- name: workspace_of_jobs
-- Which of these jobs are in the workspace (null: any). $1 workspace, $2 ids. Primary key.
select id from job where id = any($2::uuid[]) and ($1::text is null or workspace_id = $1)

-- name: root_of
-- $1 workspace, $2 id. Primary key.
select coalesce(root_job, parent_job, id) from job where workspace_id = $1 and id = $2

-- name: args_of
-- $1 workspace, $2 id. Primary key.
select coalesce(args, '{}') from job where workspace_id = $1 and id = $2

-- name: watch
-- How a job stands right now, for somebody who follows it. $1 workspace, $2 id. Primary keys.
select q.state, q.awaited, q.progress, coalesce(q.memory_peak_kb, c.memory_peak_kb) as memory_peak_kb, c.status,
       q.started_at is not null or c.started_at is not null as started
  from job
  left join job_queue as q on q.id = job.id
  left join job_completed as c on c.id = job.id
 where job.id = $2 and job.workspace_id = $1

-- name: await_job
-- Have the job's log, progress and end announced: somebody follows it now. $1 id. Primary key.
update job_queue set awaited = true where id = $1 and not awaited

-- name: erase
-- Forget arguments and result of a job that has ended; that it ran stays known. $1 workspace, $2 id. Primary keys.
with erased as (
  update job_completed set result = null, deleted = true where workspace_id = $1 and id = $2 returning id
), payload as (
  update job set args = null, raw_code = null from erased where job.id = erased.id
), logs as (
  delete from job_log using erased where job_log.job_id = erased.id
), streams as (
  delete from job_stream using erased where job_stream.job_id = erased.id
)
select id from erased

-- name: draining
-- Whether the worker that runs a job takes no more of them. $1 workspace, $2 id. Primary keys.
select coalesce(worker_host.draining, false)
  from job_queue
  left join worker_host on worker_host.incarnation = job_queue.incarnation
 where job_queue.workspace_id = $1 and job_queue.id = $2

-- name: store_progress
-- A job says how far it is, through the API. $1 workspace, $2 id, $3 percent. Primary key.
update job_queue set progress = $3 where workspace_id = $1 and id = $2 and state = 'running' returning id

-- name: why
-- What there is to know about why a job stands where it stands. $1 workspace, $2 id, $3 bound of the count of jobs ahead.
-- Primary keys, job_queue_claim_idx, job_queue_held_idx.
with mine as (
  select job.id, job.tag, job.priority, coalesce(q.scheduled_for, job.scheduled_for) as scheduled_for, q.state, c.status,
         c.completed_at, coalesce(q.worker, c.worker) as worker, coalesce(q.started_at, c.started_at) as started_at,
         coalesce(q.attempt, c.attempt, 0) as attempt, coalesce(q.n_lost, 0) as n_lost,
         coalesce(q.canceled_by, c.canceled_by) as canceled_by,
         coalesce(q.canceled_reason, c.canceled_reason) as canceled_reason
    from job
    left join job_queue as q on q.id = job.id
    left join job_completed as c on c.id = job.id
   where job.id = $2 and job.workspace_id = $1
), live as (
  select incarnation, draining, tags, (select count(*) from worker where worker.incarnation = host.incarnation) as n
    from worker_host as host
   where lease_expires_at > now()
), serving as (
  select live.* from live join mine on mine.tag = any(live.tags)
)
select now() as now, mine.*,
       (select count(*)
          from (select from job_queue as other
                 where other.tag = mine.tag and other.state = 'queued' and mine.state = 'queued'
                   and (other.priority > mine.priority
                        or other.priority = mine.priority
                           and (other.scheduled_for, other.id) < (mine.scheduled_for, mine.id))
                 limit $3) as ahead) as n_ahead,
       (select coalesce(sum(n) filter (where not draining), 0) from serving)::int as n_workers,
       (select coalesce(sum(n) filter (where draining), 0) from serving)::int as n_draining,
       held.n_busy::int as n_busy, held.busy_since,
       (select coalesce(array_agg(distinct tag order by tag), '{}') from live, unnest(live.tags) as listened (tag)
         where not live.draining) as live_tags
  from mine
 cross join (select count(*) as n_busy, min(q.started_at) as busy_since
               from job_queue as q
               join serving on serving.incarnation = q.incarnation and not serving.draining
              where q.state = 'running') as held

-- name: database_clock
select (extract(epoch from now()) * 1000)::bigint
