-- Results of jobs that have ended.

-- name: results_of
-- For everybody who waits, in one go. $1 ids. Primary key.
select id, status, result from job_completed where id = any($1::uuid[])

-- name: result_of
-- $1 workspace, $2 id. Primary key.
select status, coalesce(result, 'null') as result from job_completed where id = $2 and workspace_id = $1

-- name: result_maybe
-- The result, or how far the job is. $1 workspace, $2 id. Primary keys.
select q.started_at is not null or c.started_at is not null as started, c.status, coalesce(c.result, 'null') as result
  from job
  left join job_queue as q on q.id = job.id
  left join job_completed as c on c.id = job.id
 where job.id = $2 and job.workspace_id = $1
