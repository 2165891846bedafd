-- Large logs go to object storage, where there is one: what of them is there, and how to find what should be.

-- One row for each object from before it is uploaded until after it is deleted, so that none is ever forgotten:
-- written with a time to delete it, which is taken away when the log's rows go in favour of it, and set again by
-- whatever erases the log.
create table log_object (
  job_id uuid not null,
  start_at bigint not null,                 -- offset of the first character, in UTF-16 units
  end_at bigint not null,                   -- offset after the last one
  key text not null,                        -- its name below MILLHAND_OBJECT_STORE
  delete_at timestamptz,                    -- null: it is part of the log
  primary key (job_id, start_at, end_at)
);
create index log_object_delete_idx on log_object (delete_at) where delete_at is not null;

-- Rows at which an object may end: they reach or cross a multiple of 2^20 units. The index is the list of work: it is
-- empty while all logs are small, and a border leaves it together with what stands before.
create index job_log_border_idx on job_log (job_id, seq) where start_at >> 20 < end_at >> 20;
