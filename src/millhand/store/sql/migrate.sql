-- The schema's version and the instance's settings.

-- name: lock_schema
-- One migration at a time in the whole database; released when the session ends.
select pg_advisory_lock(hashtext('millhand.migrate'))

-- name: create_version_table
create table if not exists millhand_migration (
  version integer primary key,
  name text not null,
  applied_at timestamptz not null default now()
)

-- name: insert_version
-- $1 version, $2 name. Written before the migration itself: a second starter fails here and not half-way.
insert into millhand_migration (version, name) values ($1, $2)

-- name: bound_lock_waits
-- A migration that can't get its lock gives way to the running system instead of queueing everything behind it.
set local lock_timeout = '10s'

-- name: read_version
select max(version) from millhand_migration

-- name: insert_setting
-- $1 name, $2 value. The first one stays.
insert into millhand_setting (name, value) values ($1, $2) on conflict (name) do nothing

-- name: read_setting
-- $1 name
select value from millhand_setting where name = $1
