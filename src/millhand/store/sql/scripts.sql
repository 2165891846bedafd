-- Deployed scripts: every version is a row of its own; the newest one that is not archived is the script at its path.

-- name: get_script
-- One version. $1 workspace, $2 hash. Primary key.
select hash, workspace_id, path, content, language, summary, description, schema, lock, lock_error, lock_job_id,
       parent_hashes, kind, tag, envs, options, created_by, created_at, archived, deleted
  from script
 where workspace_id = $1 and hash = $2

-- name: latest_script
-- The newest version at a path that is neither archived nor deleted. $1 workspace, $2 path. Index script_path_idx.
select hash, workspace_id, path, content, language, summary, description, schema, lock, lock_error, lock_job_id,
       parent_hashes, kind, tag, envs, options, created_by, created_at, archived, deleted
  from script
 where workspace_id = $1 and path = $2 and not archived and not deleted
 order by created_at desc
 limit 1

-- name: lock_path
-- Deployments to one path take turns, until the transaction ends. $1 workspace, $2 path
select pg_advisory_xact_lock(hashtextextended($1 || ':' || $2, 7))

-- name: head_of_path
-- The newest version at a path, archived or not: the parent of the next one. $1 workspace, $2 path. Index script_path_idx.
select hash, parent_hashes, archived or deleted as gone
  from script
 where workspace_id = $1 and path = $2
 order by created_at desc
 limit 1

-- name: insert_script
-- $1 workspace, $2 hash, $3 path, $4 content, $5 language, $6 summary, $7 description, $8 schema, $9 lock,
-- $10 id of the job that finds the lock, $11 hashes of the parents, $12 kind, $13 tag, $14 environment, $15 options,
-- $16 who, $17 now. Tells the servers, which remember what a path runs; so do all statements here that change that.
-- The newest version is the one with the latest time: whatever the clock says, it comes after those that are there.
with inserted as (
  insert into script (workspace_id, hash, path, content, language, summary, description, schema, lock, lock_job_id,
                      parent_hashes, kind, tag, envs, options, created_by, created_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
          greatest(coalesce($17::timestamptz, clock_timestamp()),
                   (select max(created_at) + interval '1 microsecond' from script
                     where workspace_id = $1 and path = $3)))
  returning workspace_id, path
)
select pg_notify('millhand_watch', 's:' || workspace_id || ':' || path) from inserted

-- name: save_lock
-- What the dependencies job found; a lock that is there stays. $1 workspace, $2 hash, $3 lock, $4 error. Primary key.
with locked as (
  update script
     set lock = $3, lock_error = $4
   where workspace_id = $1 and hash = $2 and lock is null
  returning workspace_id, path
)
select pg_notify('millhand_watch', 's:' || workspace_id || ':' || path) from locked

-- name: runnables_at
-- What a run needs of the scripts at these paths, in one go for many callers. A version whose lock is there goes before
-- a newer one whose lock is not: deploying never interrupts. $1 workspaces, $2 paths. Index script_path_idx.
select asked.nr, found.*
  from unnest($1::text[], $2::text[]) with ordinality as asked (workspace_id, path, nr)
 cross join lateral (
    select hash, path, language, tag, options, lock is not null as locked, lock_error
      from script
     where script.workspace_id = asked.workspace_id and script.path = asked.path and not archived and not deleted
     order by (lock is not null) desc, (lock_error is null) desc, created_at desc
     limit 1) as found

-- name: runnables_by_hash
-- The same by hash. An archived version can be run by its hash, a deleted one can't. $1 workspaces, $2 hashes. Primary key.
select asked.nr, script.hash, script.path, script.language, script.tag, script.options,
       script.lock is not null as locked, script.lock_error
  from unnest($1::text[], $2::bigint[]) with ordinality as asked (workspace_id, hash, nr)
  join script on script.workspace_id = asked.workspace_id and script.hash = asked.hash and not script.deleted

-- name: list_scripts
-- The newest version of each path. $1 workspace, $2 start of the path, $3 exact path, $4 archived ones instead,
-- $5 creator, $6 languages, $7 kinds, $8 include those without main, $9 limit, $10 offset. Index script_path_idx.
select hash, workspace_id, path, '' as content, language, summary, description, null::json as schema, lock, lock_error,
       lock_job_id, parent_hashes, kind, tag, envs, options, created_by, created_at, archived, deleted
  from (
    select distinct on (path) *
      from script
     where workspace_id = $1 and not deleted
       and ($2::text is null or starts_with(path, $2)) and ($3::text is null or path = $3)
     order by path, created_at desc) as newest
 where archived = $4
   and ($5::text is null or created_by = $5)
   and ($6::text[] is null or language = any($6))
   and ($7::text[] is null or kind = any($7))
   and ($8 or not coalesce((options ->> 'no_main_func')::boolean, false))
 order by created_at desc, path
 limit $9 offset $10

-- name: list_paths
-- $1 workspace. Index script_path_idx.
select distinct path from script where workspace_id = $1 and not archived and not deleted order by path

-- name: history
-- Versions of a path, newest first. $1 workspace, $2 path, $3 limit, $4 offset. Index script_path_idx.
select hash, created_at, created_by, options ->> 'deployment_message' as deployment_message
  from script
 where workspace_id = $1 and path = $2 and not deleted
 order by created_at desc
 limit $3 offset $4

-- name: archive_path
-- $1 workspace, $2 path. Index script_path_idx.
with archived as (
  update script set archived = true where workspace_id = $1 and path = $2 and not archived and not deleted
  returning workspace_id, path
)
select pg_notify('millhand_watch', 's:' || workspace_id || ':' || path) from archived

-- name: archive_hash
-- $1 workspace, $2 hash. Primary key.
with archived as (
  update script set archived = true where workspace_id = $1 and hash = $2 and not deleted
  returning workspace_id, path
)
select pg_notify('millhand_watch', 's:' || workspace_id || ':' || path) from archived

-- name: delete_hash
-- The row stays, its text goes: jobs of the past still name it. $1 workspace, $2 hash. Primary key.
with erased as (
  update script
     set deleted = true, archived = true, content = '', schema = null, lock = coalesce(lock, '')
   where workspace_id = $1 and hash = $2 and not deleted
  returning workspace_id, path
)
select pg_notify('millhand_watch', 's:' || workspace_id || ':' || path) from erased

-- name: delete_path
-- $1 workspace, $2 path. Index script_path_idx.
with erased as (
  update script
     set deleted = true, archived = true, content = '', schema = null, lock = coalesce(lock, '')
   where workspace_id = $1 and path = $2 and not deleted
  returning workspace_id, path
)
select pg_notify('millhand_watch', 's:' || workspace_id || ':' || path) from erased
