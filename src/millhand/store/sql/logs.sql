-- Job logs and result streams: append-only pieces, each with its place.

-- name: append_logs
-- Append one piece to each of many logs; where another writer took the same place at the same time, nothing is
-- written for that job and it is missing in the answer: the caller tries again. Written in the order of ids.
-- Primary key of job_log gives the last piece. $1 job ids (each once), $2 texts, $3 their lengths in UTF-16 units
insert into job_log (job_id, seq, start_at, end_at, text)
select given.job_id, coalesce(last.seq + 1, 0), coalesce(last.end_at, 0), coalesce(last.end_at, 0) + given.n_units,
       given.text
  from unnest($1::uuid[], $2::text[], $3::bigint[]) as given(job_id, text, n_units)
  left join lateral (
    select seq, end_at from job_log where job_log.job_id = given.job_id order by seq desc limit 1) as last on true
 order by given.job_id
on conflict (job_id, seq) do nothing
returning job_id

-- name: read_log
-- The pieces of a log past an offset, in order, whether they are here or in object storage: in one statement, so that
-- none is missed that goes from here to there. Primary keys. $1 job id, $2 offset in UTF-16 units, $3 offset to stop at
select start_at, end_at, null as key, text from job_log where job_id = $1 and end_at > $2 and start_at < $3
union all
select start_at, end_at, key, null as text from log_object
 where job_id = $1 and end_at > $2 and start_at < $3 and delete_at is null
 order by start_at

-- name: read_kept
-- The pieces of a log that are here, in order. Primary key. $1 job id
select start_at, text from job_log where job_id = $1 order by seq

-- name: doom
-- Have the objects of these logs deleted. Primary key. $1 job ids
update log_object set delete_at = now() where job_id = any($1::uuid[]) and delete_at is null

-- name: log_length
-- $1 job id
select end_at from job_log where job_id = $1 order by seq desc limit 1

-- name: append_stream
-- $1 job id, $2 text
insert into job_stream (job_id, seq, text)
select $1::uuid, coalesce((select seq + 1 from job_stream where job_id = $1 order by seq desc limit 1), 0), $2
on conflict (job_id, seq) do nothing
returning seq

-- name: read_stream
-- $1 job id, $2 number of pieces the caller has
select text from job_stream where job_id = $1 and seq >= $2 order by seq
