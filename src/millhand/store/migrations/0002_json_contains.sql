-- Lists of jobs can be filtered by arguments and results, which are `json` as it came: some of it no `jsonb` can hold (NUL
-- characters, halves of surrogate pairs, enormous numbers, thousands of levels). That one job has such a value must not
-- fail the list for all others: it just contains nothing.

create function json_contains(value json, wanted jsonb) returns boolean language plpgsql immutable as $$
begin
  return value::jsonb @> wanted;
exception when data_exception or program_limit_exceeded then
  return false;
end
$$;
