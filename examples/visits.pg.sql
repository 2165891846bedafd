-- SQL: statements run in order on a database; the last one's rows are the result. Parameters are bound, never pasted in.
-- database datatable://main
-- $1 page (text) = home

create table if not exists visit (page text not null, at timestamptz not null default now());
insert into visit (page) values ($1);
select page, count(*) as visits from visit where page = $1 group by page;
