-- Worker hosts, their workers and leases.

-- name: register_host
-- Take the lease of an incarnation; a host that lost it takes it again under a new one.
-- $1 incarnation, $2 group, $3 hostname, $4 ip, $5 version, $6 tags, $7 isolation, $8 vcpus, $9 memory, $10 started at,
-- $11 lease in seconds, $12 workers, $13 now
with host as (
  insert into worker_host (incarnation, worker_group, hostname, ip, version, tags, isolation, vcpus, memory, started_at,
                           pinged_at, lease_expires_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce($13::timestamptz, now()),
          coalesce($13::timestamptz, now()) + make_interval(secs => $11))
  on conflict (incarnation) do update
     set pinged_at = excluded.pinged_at, lease_expires_at = excluded.lease_expires_at, draining = false
  returning incarnation
)
insert into worker (name, incarnation)
select name, incarnation from unnest($12::text[]) as name cross join host
on conflict (name) do nothing

-- name: ping_host
-- Renew the lease; nothing comes back where the host was struck off.
-- $1 incarnation, $2 lease in seconds, $3 memory of all, $4 memory of the host, $5 draining, $6 now
update worker_host
   set pinged_at = coalesce($6::timestamptz, now()),
       lease_expires_at = coalesce($6::timestamptz, now()) + make_interval(secs => $2),
       memory_usage = $3, host_memory_usage = $4, draining = $5
 where incarnation = $1
returning true

-- name: ping_workers
-- $1 incarnation, $2–$9 one array per column
update worker
   set jobs_executed = ping.jobs_executed, occupancy = ping.occupancy, occupancy_15s = ping.occupancy_15s,
       occupancy_5m = ping.occupancy_5m, occupancy_30m = ping.occupancy_30m, current_job = ping.current_job,
       last_job = ping.last_job, last_job_workspace = ping.last_job_workspace
  from unnest($2::text[], $3::int[], $4::real[], $5::real[], $6::real[], $7::real[], $8::uuid[], $9::uuid[], $10::text[])
    as ping(name, jobs_executed, occupancy, occupancy_15s, occupancy_5m, occupancy_30m, current_job, last_job,
            last_job_workspace)
 where worker.name = ping.name and worker.incarnation = $1

-- name: orders
-- What a host must know of the jobs it believes it holds: which are canceled, and which it holds no longer.
-- $1 incarnation, $2 ids
select held.id, job_queue.id is null as lost, job_queue.canceled_by, job_queue.canceled_reason
  from unnest($2::uuid[]) as held(id)
  left join job_queue
    on job_queue.id = held.id and job_queue.incarnation = $1 and job_queue.state::text = 'running'
 where job_queue.id is null or job_queue.canceled_by is not null

-- name: release_forgotten
-- Queue the jobs that a host was given and knows nothing of: their claim was committed, its answer lost on the way.
-- Nobody ran them, so no rescue is counted; the raised attempt fences. Index job_queue_held_idx.
-- $1 incarnation, $2 ids the host believes it holds, $3 seconds since when they have been running, $4 now
update job_queue
   set state = 'queued', incarnation = null, worker = null, started_at = null, progress = null
 where incarnation = $1 and state = 'running'
   and started_at < coalesce($4::timestamptz, now()) - make_interval(secs => $3)
   and id <> all($2::uuid[])
returning id, tag

-- name: deregister_host
-- $1 incarnation
delete from worker_host where incarnation = $1

-- name: list_workers
-- Workers that pinged within $1 seconds, for lists. $1 seconds, $2 now
select worker.name, host.incarnation, host.worker_group, host.hostname, host.ip, host.version, host.tags, host.isolation,
       host.vcpus, host.memory, host.memory_usage, host.host_memory_usage, host.draining, host.started_at,
       extract(epoch from coalesce($2::timestamptz, now()) - host.pinged_at)::float8 as last_ping_s,
       host.lease_expires_at >= coalesce($2::timestamptz, now()) as alive,
       worker.jobs_executed, worker.occupancy, worker.occupancy_15s, worker.occupancy_5m, worker.occupancy_30m,
       worker.current_job, worker.last_job, worker.last_job_workspace
  from worker
  join worker_host as host on host.incarnation = worker.incarnation
 where host.pinged_at > coalesce($2::timestamptz, now()) - make_interval(secs => $1)
 order by host.worker_group, host.hostname, worker.name

-- name: list_served_tags
-- Tags that a live host which takes new work listens to. $1 now
select distinct unnest(tags) as tag
  from worker_host
 where lease_expires_at >= coalesce($1::timestamptz, now()) and not draining
 order by 1

-- name: served_by
-- How many workers listen to a tag, how many of them work, and since when the longest of these jobs runs.
-- $1 tag, $2 now
select count(*) as n_workers,
       count(held.id) as n_busy,
       extract(epoch from coalesce($2::timestamptz, now()) - min(held.started_at))::float8 as longest_s
  from worker_host as host
  join worker on worker.incarnation = host.incarnation
  left join job_queue as held
    on held.incarnation = host.incarnation and held.state = 'running' and held.worker = worker.name
 where host.lease_expires_at >= coalesce($2::timestamptz, now()) and not host.draining and $1::text = any(host.tags)
