"""The `millhand` command: names, options and help. Each command's work stands in a file of its own, imported when it runs.

Streams are a contract: results and tables go to stdout, everything said about them to stderr. Exit codes: 0 done,
1 failed (the job, or what was asked), 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from millhand.cli.usage import UsageError, parse_id
from millhand.core.errors import BadRequestError, MillhandError

app = typer.Typer(
    name="millhand",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_HERE = "This machine"
_JOBS = "Jobs and scripts"
_PARTS = "The parts, configured by their environment"

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where everything is kept; else MILLHAND_DATA_DIR, else the system's place."
    ),
]
WorkspaceOption = Annotated[
    str, typer.Option("--workspace", "-w", envvar="MILLHAND_WORKSPACE", metavar="ID", help="The workspace.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from millhand import __version__

        print(f"millhand {__version__}")
        raise typer.Exit


@app.callback()
def _millhand(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run scripts on tag-routed workers, over PostgreSQL alone."""


@app.command(rich_help_panel=_HERE)
def up(
    *,
    port: Annotated[int, typer.Option(help="Where the API listens; 0 takes any free port.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="The address it listens on; 0.0.0.0 for all.")] = "127.0.0.1",
    data_dir: DataDirOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many jobs run at a time.", show_default="number of cores")
    ] = None,
    group: Annotated[str, typer.Option(help="The worker group.")] = "default",
    until_unused: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start everything: PostgreSQL (or the one of DATABASE_URL), server, workers. Ctrl-C ends it, running jobs finish."""
    from millhand.cli.up import UpSettings, run_up

    run_up(
        UpSettings(
            host=host,
            port=port,
            data_dir=_data_dir(data_dir),
            workers=workers or os.cpu_count() or 1,
            group=group,
            database_url=os.environ.get("DATABASE_URL") or None,
            until_unused=until_unused,
        )
    )


@app.command(rich_help_panel=_HERE)
def run(
    *,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A file, or the path of a deployed script (u/admin/hello).")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE", help="Arguments; a value is JSON where it can be read as such, else text."
        ),
    ] = None,
    args_json: Annotated[
        str | None,
        typer.Option("--json", metavar="ARGS|-", help="Arguments as one JSON object; - reads it from stdin."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Run on workers that listen to this tag.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds the job may take.")] = None,
    workspace: WorkspaceOption = "main",
    data_dir: DataDirOption = None,
) -> None:
    """Run one script: its log to stderr, its result as JSON to stdout.

    It runs on MILLHAND_URL (with MILLHAND_TOKEN), else on the running `up`, else on one started just for this.
    """
    from millhand.cli.run import RunRequest, run_script

    request = RunRequest(target=target, arguments=tuple(arguments or ()), json=args_json, tag=tag, timeout_s=timeout)
    raise typer.Exit(run_script(request, workspace=workspace, data_dir=_data_dir(data_dir)))


@app.command(rich_help_panel=_JOBS)
def push(
    *,
    file: Annotated[Path, typer.Argument(help="The script; its ending tells the language.")],
    path: Annotated[str, typer.Option(help="Where it is deployed: u/<user>/<name> or f/<folder>/<name>.")],
    tag: Annotated[str | None, typer.Option(help="The tag its jobs have; else its language's.")] = None,
    summary: Annotated[str, typer.Option(help="What it does, in a line.")] = "",
    as_json: AsJson = False,
    workspace: WorkspaceOption = "main",
    data_dir: DataDirOption = None,
) -> None:
    """Deploy a script, and wait until its dependencies are resolved."""
    from millhand.cli.connect import running
    from millhand.cli.push import push_script

    with running(workspace=workspace, data_dir=_data_dir(data_dir)) as api:
        push_script(api, file=file, path=path, tag=tag, summary=summary, as_json=as_json)


@app.command(rich_help_panel=_JOBS)
def jobs(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
    workspace: WorkspaceOption = "main",
    data_dir: DataDirOption = None,
) -> None:
    """List jobs; of those that wait, why."""
    from millhand.cli import listings
    from millhand.cli.connect import running

    with running(workspace=workspace, data_dir=_data_dir(data_dir)) as api:
        listings.jobs(api, limit=limit, as_json=as_json)


@app.command(rich_help_panel=_JOBS)
def logs(
    *,
    job: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    workspace: WorkspaceOption = "main",
    data_dir: DataDirOption = None,
) -> None:
    """Show a job's log."""
    from millhand.cli.connect import running
    from millhand.cli.watch import show_log

    job_id = parse_id(job)
    with running(workspace=workspace, data_dir=_data_dir(data_dir)) as api:
        show_log(api, job_id, follow=follow)


@app.command(rich_help_panel=_JOBS)
def cancel(
    *,
    job: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    force: Annotated[bool, typer.Option("--force", help="End it now, whatever its worker says.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the job's record.")] = "canceled from the command line",
    workspace: WorkspaceOption = "main",
    data_dir: DataDirOption = None,
) -> None:
    """Cancel a job: a waiting one at once, a running one is told to end."""
    from millhand.cli.connect import running

    job_id = parse_id(job)
    with running(workspace=workspace, data_dir=_data_dir(data_dir)) as api:
        verb = "force_cancel" if force else "cancel"
        print(api.post(f"jobs_u/queue/{verb}/{job_id}", {"reason": reason}))


@app.command(rich_help_panel=_JOBS)
def why(
    *,
    job: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    as_json: AsJson = False,
    workspace: WorkspaceOption = "main",
    data_dir: DataDirOption = None,
) -> None:
    """Say why a job has not started."""
    from millhand.cli import listings
    from millhand.cli.connect import running

    job_id = parse_id(job)
    with running(workspace=workspace, data_dir=_data_dir(data_dir)) as api:
        listings.why(api, job_id, as_json=as_json)


@app.command(rich_help_panel=_JOBS)
def workers(*, as_json: AsJson = False, data_dir: DataDirOption = None) -> None:
    """List the workers that are alive."""
    from millhand.cli import listings
    from millhand.cli.connect import running

    with running(workspace="main", data_dir=_data_dir(data_dir)) as api:
        listings.workers(api, as_json=as_json)


@app.command(rich_help_panel=_JOBS)
def queues(*, as_json: AsJson = False, data_dir: DataDirOption = None) -> None:
    """List the tags: what waits, what runs, how many workers listen."""
    from millhand.cli import listings
    from millhand.cli.connect import running

    with running(workspace="main", data_dir=_data_dir(data_dir)) as api:
        listings.queues(api, as_json=as_json)


@app.command(rich_help_panel=_PARTS)
def server() -> None:
    """Serve the HTTP API (DATABASE_URL, PORT, HOST, BASE_URL)."""
    from millhand.cli.serve import serve

    serve()


@app.command(rich_help_panel=_PARTS)
def worker() -> None:
    """Run jobs (DATABASE_URL, NUM_WORKERS, WORKER_GROUP, WORKER_TAGS). TERM drains, a second TERM ends at once."""
    from millhand.cli.work import work

    work()


@app.command(rich_help_panel=_PARTS)
def migrate() -> None:
    """Bring the schema of DATABASE_URL up to this release."""
    from millhand.cli.schema import migrate_schema

    migrate_schema()


def main() -> NoReturn:
    """Run the command line; what the user can mend is said in a line, never as a stack trace."""
    try:
        app(prog_name="millhand")
    except (UsageError, BadRequestError) as error:
        _fail(error, code=2)
    except MillhandError as error:
        _fail(error, code=1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _fail(error: Exception, *, code: int) -> NoReturn:
    print(f"millhand: {error}", file=sys.stderr)
    sys.exit(code)


def _data_dir(chosen: Path | None) -> Path:
    from millhand.cli.data_dir import default_data_dir

    return chosen.expanduser().absolute() if chosen is not None else default_data_dir(os.environ)
