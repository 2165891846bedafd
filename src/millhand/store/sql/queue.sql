-- The queue: from push to claim. `$n now` is null in production and means the database's clock; tests turn it by hand.

-- name: push_jobs
-- Write payloads and queue rows of new jobs; returns the tags that have work at once, for a nudge after the commit.
-- $1–$27 one array per column, $28 now, $29 nudge in this very transaction: a round trip less for who pushes alone
with pushed as (
  select *, coalesce(asked_for, $28::timestamptz, now()) as scheduled_for
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::json[],
                $9::text[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::text[], $15::smallint[],
                $16::timestamptz[], $17::int[], $18::int[], $19::uuid[], $20::uuid[], $21::text[], $22::text[],
                $23::text[], $24::bool[], $25::bool[], $26::bool[], $27::bool[])
      as row(id, workspace_id, kind, tag, created_by, permissioned_as, email, args,
             runnable_path, runnable_hash, raw_code, raw_lock, language, entrypoint, priority,
             asked_for, timeout_s, cache_ttl_s, parent_job, root_job, flow_step_id, trigger,
             trigger_kind, visible_to_owner, awaited, delete_after_use, restart_unless_cancelled)
), payload as (
  insert into job (id, workspace_id, kind, created_at, created_by, permissioned_as, email, tag, priority, scheduled_for,
                   runnable_path, runnable_hash, raw_code, raw_lock, language, entrypoint, args, timeout_s, cache_ttl_s,
                   parent_job, root_job, flow_step_id, trigger, trigger_kind, visible_to_owner, delete_after_use,
                   restart_unless_cancelled)
  select id, workspace_id, kind, coalesce($28::timestamptz, now()), created_by, permissioned_as, email, tag, priority,
         scheduled_for, runnable_path, runnable_hash, raw_code, raw_lock, language, entrypoint, args, timeout_s,
         cache_ttl_s, parent_job, root_job, flow_step_id, trigger, trigger_kind, visible_to_owner, delete_after_use,
         restart_unless_cancelled
    from pushed
), queued as (
  insert into job_queue (id, workspace_id, tag, priority, scheduled_for, state, awaited)
  select id, workspace_id, tag, priority, scheduled_for,
         case when scheduled_for > coalesce($28::timestamptz, now()) then 'scheduled' else 'queued' end::job_state, awaited
    from pushed
  returning tag, state
)
select ready.tag, nudge.*
  from (select distinct tag from queued where state = 'queued') as ready
  left join lateral (select pg_notify('millhand_work', 'q:' || ready.tag) where $29) as nudge on true

-- name: claim_jobs
-- Give the best queued jobs to free workers, one each.
-- Index job_queue_claim_idx: one probe per tag, so that a backlog of other tags is not felt. Candidates are looked at
-- in order, without locks, then locked one by one until there are enough: the lateral sub-select is run as far as the
-- limit asks. One that another host has locked is passed over, and `n_candidates` tells the caller that there was one.
-- Rows are reached by `ctid` (one moved by an update meanwhile is not found, and it is not queued any more).
-- A host whose lease has run out gets nothing.
-- $1 workers, $2 tags, $3 incarnation, $4 weight of each tag (null: all alike), $5 candidates to look at per tag, $6 now
with candidate as materialized (
  select head.ctid as place
    from unnest($2::text[], $4::int[]) as listened(tag, weight)
   cross join lateral (
     select ctid, id, priority, scheduled_for
       from job_queue
      where state = 'queued' and tag = listened.tag
      order by priority desc, scheduled_for, id
      limit $5) as head
   where exists (select from worker_host
                  where incarnation = $3 and lease_expires_at > coalesce($6::timestamptz, now()))
   order by coalesce(listened.weight, 0) desc, head.priority desc, head.scheduled_for, head.id
   limit $5
), taken as materialized (
  select candidate.place
    from candidate
   cross join lateral (
     select from job_queue where ctid = candidate.place and state = 'queued' for update skip locked) as locked
   limit cardinality($1::text[])
), numbered as (
  select place, row_number() over () as number from taken
), claimed as (
  update job_queue
     set state = 'running', attempt = attempt + 1, incarnation = $3, worker = ($1::text[])[number],
         started_at = coalesce($6::timestamptz, now())
    from numbered
   where job_queue.ctid = numbered.place
  returning job_queue.id, attempt, worker, workspace_id, tag, scheduled_for, started_at, priority, awaited, canceled_by,
            canceled_reason, number
)
select claimed.id, claimed.attempt, claimed.worker, claimed.workspace_id, job.kind, claimed.tag,
       coalesce(job.args, '{}') as args, job.created_by, job.permissioned_as, job.email, claimed.scheduled_for,
       claimed.started_at, job.runnable_path, job.runnable_hash, job.raw_code, job.raw_lock, job.language,
       job.entrypoint, claimed.priority, job.timeout_s, job.cache_ttl_s, job.parent_job, job.root_job, job.flow_step_id,
       job.trigger, claimed.awaited, claimed.canceled_by, claimed.canceled_reason, job.delete_after_use,
       job.restart_unless_cancelled, seen.n_candidates
  from (select count(*) as n_candidates from candidate) as seen
  left join (claimed join job on job.id = claimed.id) on true
 order by claimed.number

-- name: promote_due
-- Queue the jobs whose time has come, at most $1 of them, and tell the seconds until the next one is due.
-- Index job_queue_due_idx. Rows that another host promotes right now are left to it.
-- $1 limit, $2 now
with due as materialized (
  select id
    from job_queue
   where state = 'scheduled' and scheduled_for <= coalesce($2::timestamptz, now())
   order by scheduled_for
   limit $1
     for update skip locked
), promoted as (
  update job_queue set state = 'queued' from due where job_queue.id = due.id returning tag
)
select (select count(*) from promoted) as n_promoted,
       (select array_agg(distinct tag) from promoted) as tags,
       (select extract(epoch from scheduled_for - coalesce($2::timestamptz, now()))::float8
          from job_queue
         where state = 'scheduled' and scheduled_for > coalesce($2::timestamptz, now())
         order by scheduled_for
         limit 1) as next_due_s

-- name: run_now
-- Have a job that was scheduled for later run now; returns its tag, or nothing where it does not wait for its time.
-- $1 workspace, $2 id, $3 now
update job_queue
   set state = 'queued', scheduled_for = coalesce($3::timestamptz, now())
 where id = $2 and workspace_id = $1 and state = 'scheduled'
returning tag

-- name: release_jobs
-- Put running jobs back where they were, for another worker. The attempt stays raised: it fences, it does not count.
-- $1 ids, $2 attempts, $3 incarnation
update job_queue
   set state = 'queued', incarnation = null, worker = null, started_at = null, progress = null
  from unnest($1::uuid[], $2::int[]) as given(id, attempt)
 where job_queue.id = given.id and job_queue.attempt = given.attempt
   and job_queue.incarnation = $3 and job_queue.state::text = 'running' -- not by the index of running jobs
returning job_queue.id, job_queue.tag

-- name: set_progress
-- $1 id, $2 percent, $3 incarnation
update job_queue set progress = $2 where id = $1 and incarnation = $3 and state::text = 'running' returning awaited

-- name: count_by_tag
-- How much of each tag waits and runs, and how long the first has waited. $1 workspace (null: all), $2 now
select tag,
       count(*) filter (where state = 'queued') as n_queued,
       count(*) filter (where state = 'running') as n_running,
       count(*) filter (where state = 'scheduled') as n_scheduled,
       count(*) filter (where state = 'suspended') as n_suspended,
       extract(epoch from coalesce($2::timestamptz, now())
                          - min(scheduled_for) filter (where state = 'queued'))::float8 as oldest_s
  from job_queue
 where $1::text is null or workspace_id = $1
 group by tag
 order by tag

-- name: count_ahead
-- How many queued jobs of its tag a worker would take before this one, counted no further than $2.
-- Index job_queue_claim_idx. $1 id, $2 bound
select count(*)
  from (select
          from job_queue as mine
          join job_queue as other on other.tag = mine.tag and other.state = 'queued'
         where mine.id = $1 and mine.state = 'queued'
           and (other.priority > mine.priority
                or other.priority = mine.priority
                   and (other.scheduled_for, other.id) < (mine.scheduled_for, mine.id))
         limit $2) as ahead
