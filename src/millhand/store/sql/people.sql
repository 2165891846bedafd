-- People: accounts, workspaces, who is a member of which, tokens.

-- name: identity_of_token
-- $1 hash of the token. Primary key of token.
select account.email, account.username, account.super_admin, account.disabled, token.workspace_id, token.scopes,
       extract(epoch from token.expiration - now())::float8 as left_s, token.token_prefix,
       token.last_used_at < now() - interval '1 minute' as untouched,
       (select coalesce(json_agg(member), '[]'::json) from member where member.email = account.email) as members
  from token
  join account on account.email = token.email
 where token.token_hash = $1

-- name: touch_token
-- When it was used last, to the minute. $1 hash of the token. Primary key.
update token set last_used_at = now() where token_hash = $1 and last_used_at < now() - interval '1 minute'

-- name: identity_of_job
-- Whose rights a job has, and whether it still runs. $1 job, $2 workspace, $3 e-mail, $4 when its token ends, in Unix
-- seconds: by the database's clock, which also set it. Primary keys.
select account.email, account.username, account.super_admin, account.disabled,
       (select coalesce(json_agg(member), '[]'::json) from member where member.email = account.email) as members
  from job_queue
  join account on account.email = $3
 where job_queue.id = $1 and job_queue.workspace_id = $2 and job_queue.state = 'running'
   and extract(epoch from now()) < $4::bigint

-- name: account
-- $1 e-mail. Primary key.
select email, username, password_hash, super_admin, name, company, disabled, created_at from account where email = $1

-- name: count_accounts
select count(*) from account

-- name: insert_account
-- $1 e-mail, $2 username, $3 password hash, $4 superadmin, $5 name, $6 company
insert into account (email, username, password_hash, super_admin, name, company) values ($1, $2, $3, $4, $5, $6)

-- name: set_password
-- $1 e-mail, $2 password hash
update account set password_hash = $2 where email = $1 returning email

-- name: lock_bootstrap
-- One process at a time makes the first account; released with the transaction.
select pg_advisory_xact_lock(hashtext('millhand.people'))

-- name: workspace_exists
-- $1 workspace. Primary key.
select exists (select from workspace where id = $1 and not archived)

-- name: workspace_taken
-- The name of an archived one is taken, too. $1 workspace. Primary key.
select exists (select from workspace where id = $1)

-- name: insert_workspace
-- $1 id, $2 name, $3 e-mail of its owner
insert into workspace (id, name, owner) values ($1, $2, $3)

-- name: insert_member
-- $1 workspace, $2 e-mail, $3 username, $4 admin, $5 operator
insert into member (workspace_id, email, username, is_admin, operator) values ($1, $2, $3, $4, $5)

-- name: workspaces_of
-- Those somebody may enter, with what they are called there. $1 e-mail, $2 is superadmin
select workspace.id, workspace.name, workspace.owner, workspace.archived,
       member.username, member.is_admin, member.operator
  from workspace
  left join member on member.workspace_id = workspace.id and member.email = $1
 where not workspace.archived and (member.email is not null or $2)
 order by workspace.id

-- name: member_since
-- $1 workspace, $2 e-mail. Primary key.
select created_at from member where workspace_id = $1 and email = $2

-- name: insert_token
-- $1 hash, $2 its first characters, $3 e-mail, $4 label, $5 workspace, $6 scopes, $7 expiration, $8 or seconds until then
insert into token (token_hash, token_prefix, email, label, workspace_id, scopes, expiration)
values ($1, $2, $3, $4, $5, $6, coalesce($7::timestamptz, now() + make_interval(secs => $8)))

-- name: list_tokens
-- $1 e-mail, $2 leave out the ones of sessions and jobs, $3 limit, $4 offset. Index token_email_idx.
select token_prefix, email, label, workspace_id, scopes, expiration, created_at, last_used_at
  from token
 where email = $1 and (expiration is null or expiration > now())
   and not ($2 and coalesce(label, '') in ('session', 'ephemeral-script'))
 order by created_at desc
 limit $3 offset $4

-- name: delete_token
-- $1 e-mail, $2 first characters of the token. Index token_email_idx.
delete from token where email = $1 and token_prefix = $2 returning token_hash

-- name: delete_token_by_hash
-- $1 hash. Primary key.
delete from token where token_hash = $1
