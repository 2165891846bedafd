-- The tables of the first release. Rules that shape them:
--   * a job's payload never changes and stands apart from the small hot row that does;
--   * the claim index holds rows in state 'queued' only, led by tag;
--   * what ends up in the record is partitioned by the time its id was made (UUIDv7), so that
--     retention drops partitions and a look-up by id touches one;
--   * arguments and results are `json`, not `jsonb`: what came in goes out, to the byte.

create table millhand_setting (
  name text primary key,
  value json not null,
  updated_at timestamptz not null default now()
);
comment on table millhand_setting is 'Settings of the whole instance, the secret that signs job tokens among them.';

-- people ------------------------------------------------------------------------------------------------------------

create table workspace (
  id text primary key check (id ~ '^[a-zA-Z0-9_-]{1,50}$'),
  name text not null,
  owner text not null,
  archived boolean not null default false,
  created_at timestamptz not null default now()
);

create table account (
  email text primary key,
  username text not null unique,
  password_hash text,                       -- argon2id; null: can't log in with a password
  super_admin boolean not null default false,
  name text,
  company text,
  disabled boolean not null default false,
  created_at timestamptz not null default now()
);

create table member (
  workspace_id text not null references workspace on delete cascade,
  email text not null references account on delete cascade,
  username text not null,
  is_admin boolean not null default false,
  operator boolean not null default false,
  created_at timestamptz not null default now(),
  primary key (workspace_id, email),
  unique (workspace_id, username)
);

create table token (
  token_hash bytea primary key,             -- sha256; the token itself is shown once and never stored
  token_prefix text not null,               -- its first ten characters, to name it in lists
  email text not null references account on delete cascade,
  label text,
  workspace_id text references workspace on delete cascade,
  scopes text[],                            -- null: all that its owner may do
  expiration timestamptz,
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null default now()
);
create index token_email_idx on token (email, created_at);

-- scripts -----------------------------------------------------------------------------------------------------------

create table script (
  workspace_id text not null references workspace on delete cascade,
  hash bigint not null,
  path text not null,
  content text not null,
  language text not null,
  summary text not null default '',
  description text not null default '',
  schema json,
  lock text,                                -- null until the dependencies job has ended
  lock_error text,
  lock_job_id uuid,
  parent_hashes bigint[] not null default '{}',
  kind text not null default 'script',
  tag text,
  envs text[] not null default '{}',
  options json not null default '{}',
  created_by text not null,
  created_at timestamptz not null default clock_timestamp(),
  archived boolean not null default false,
  deleted boolean not null default false,
  primary key (workspace_id, hash)
);
create index script_path_idx on script (workspace_id, path, created_at desc);

-- jobs --------------------------------------------------------------------------------------------------------------

create type job_state as enum ('scheduled', 'queued', 'running', 'suspended');
create type job_status as enum ('success', 'failure', 'canceled', 'skipped');

create table job (
  id uuid not null,
  workspace_id text not null,
  kind text not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  permissioned_as text not null,
  email text not null,
  tag text not null,
  priority smallint not null default 0,
  scheduled_for timestamptz not null,       -- as asked for at push
  runnable_path text,
  runnable_hash bigint,
  raw_code text,
  raw_lock text,
  language text,
  entrypoint text,
  args json,                                -- null after delete_after_use
  timeout_s integer,
  cache_ttl_s integer,
  parent_job uuid,
  root_job uuid,
  flow_step_id text,
  trigger text,
  trigger_kind text,
  visible_to_owner boolean not null default true,
  delete_after_use boolean not null default false,
  restart_unless_cancelled boolean not null default false,
  primary key (id)
) partition by range (id);
create index job_workspace_idx on job (workspace_id, id desc);
create index job_path_idx on job (workspace_id, runnable_path, id desc) where runnable_path is not null;
create index job_parent_idx on job (parent_job) where parent_job is not null;
create index job_erase_idx on job (id) where delete_after_use and args is not null;
create table job_default partition of job default;

create table job_queue (
  id uuid primary key,
  workspace_id text not null,
  tag text not null,
  priority smallint not null default 0,
  scheduled_for timestamptz not null,
  state job_state not null,
  attempt integer not null default 0,       -- raised by each claim; fences every write of an earlier one
  n_lost smallint not null default 0,       -- how often a worker was lost under it
  incarnation uuid,                         -- the worker host that holds it
  worker text,
  started_at timestamptz,
  canceled_by text,
  canceled_reason text,
  awaited boolean not null default false,   -- somebody waits: announce its end and its log
  progress smallint,
  memory_peak_kb integer
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05);
create index job_queue_claim_idx on job_queue (tag, priority desc, scheduled_for, id) where state = 'queued';
create index job_queue_due_idx on job_queue (scheduled_for) where state = 'scheduled';
create index job_queue_held_idx on job_queue (incarnation) where state = 'running';

create table job_completed (
  id uuid not null,
  workspace_id text not null,
  status job_status not null,
  started_at timestamptz,                   -- null: never started
  completed_at timestamptz not null default now(),
  duration_ms bigint not null default 0,
  result json,                              -- null after delete_after_use
  worker text,
  attempt integer not null default 0,
  memory_peak_kb integer not null default 0,
  canceled_by text,
  canceled_reason text,
  labels text[],
  deleted boolean not null default false,
  primary key (id)
) partition by range (id);
create index job_completed_workspace_idx on job_completed (workspace_id, id desc);
create index job_completed_time_idx on job_completed using brin (completed_at);
create index job_completed_failure_idx on job_completed (workspace_id, id desc) where status = 'failure';
create table job_completed_default partition of job_completed default;

create table job_log (
  job_id uuid not null,
  seq integer not null,
  start_at bigint not null,                 -- offset of the first character, in UTF-16 units as browsers and the CLI count
  end_at bigint not null,                   -- offset after the last one
  text text not null,
  primary key (job_id, seq)
) partition by range (job_id);
create table job_log_default partition of job_log default;

create table job_stream (
  job_id uuid not null,
  seq integer not null,
  text text not null,
  primary key (job_id, seq)
) partition by range (job_id);
create table job_stream_default partition of job_stream default;

create table result_cache (
  key text primary key,
  result json not null,
  expires_at timestamptz not null
);
create index result_cache_expiry_idx on result_cache (expires_at);

-- workers -----------------------------------------------------------------------------------------------------------

create table worker_host (
  incarnation uuid primary key,
  worker_group text not null,
  hostname text not null,
  ip text not null,
  version text not null,
  tags text[] not null,
  isolation text not null,
  vcpus bigint not null,
  memory bigint not null,
  memory_usage bigint not null default 0,
  host_memory_usage bigint not null default 0,
  draining boolean not null default false,
  started_at timestamptz not null,
  pinged_at timestamptz not null default now(),
  lease_expires_at timestamptz not null
) with (fillfactor = 50);

create table worker (
  name text primary key,
  incarnation uuid not null references worker_host on delete cascade,
  jobs_executed integer not null default 0,
  occupancy real,
  occupancy_15s real,
  occupancy_5m real,
  occupancy_30m real,
  current_job uuid,
  last_job uuid,
  last_job_workspace text
) with (fillfactor = 50);
create index worker_incarnation_idx on worker (incarnation);
