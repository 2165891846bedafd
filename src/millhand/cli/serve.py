"""`millhand server`: the HTTP API as one process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from types import FrameType

import msgspec
import structlog
import uvicorn

from millhand.cli import service_logs
from millhand.cli.garbage import collect_rarely
from millhand.cli.lifeline import Lifeline
from millhand.cli.schema import database_url, wait_for_database
from millhand.cli.sockets import BACKLOG, open_socket
from millhand.cli.usage import UsageError
from millhand.core.errors import MillhandError
from millhand.core.objects import Objects
from millhand.duties.run import Duties, DutySettings
from millhand.server.app import create_app
from millhand.server.settings import ServerSettings
from millhand.store.pool import Database

_GRACE_S = 5  # for requests and streams in flight when it ends

log = structlog.get_logger()


def serve() -> None:
    """Serve until TERM or INT; raises UsageError for settings that can't be used."""
    environment = os.environ
    lifeline = Lifeline.of_environment(environment)
    service_logs.configure(environment)
    url = database_url(environment)
    settings = ServerSettings.from_environment(environment)
    duties = _duty_settings(environment)
    objects = _objects(settings, environment)
    listening = _listening()
    config = uvicorn.Config(
        create_app(
            _database(url, settings),
            settings,
            objects=objects,
            beside=(lambda database: Duties(database, duties, objects=objects),),
        ),
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=75,
    )
    server = _Server(config, lifeline)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(wait_for_database(url))
        runner.run(server.serve(sockets=[listening]))
    if not server.started:
        raise MillhandError("the server could not start; the reason stands above")


class _Server(uvicorn.Server):
    """Tells our parent when it serves, and ends with it."""

    def __init__(self, config: uvicorn.Config, lifeline: Lifeline) -> None:
        super().__init__(config)
        self._lifeline = lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._lifeline.on_parent_gone(lambda: self.handle_exit(signal.SIGTERM, None))
            self._lifeline.ready()
            collect_rarely()

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """End in good order at the first signal, at once at the second; leave nothing to raise again afterwards."""
        log.info("server.ending")
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _database(url: str, settings: ServerSettings) -> Database:
    return Database(url, application_name="millhand server", min_size=2, max_size=settings.pool_size)


def _objects(settings: ServerSettings, environment: Mapping[str, str]) -> Objects | None:
    """Return the object storage for large logs, where there is one; raises MillhandError for a URL that names none."""
    if settings.object_store is None:
        return None
    from millhand.store.objects import open_store  # its library takes 40 ms to load

    return open_store(settings.object_store, environment)


def _duty_settings(environment: Mapping[str, str]) -> DutySettings:
    """Read what operators may say about the duties; raises UsageError for what can't be used."""
    default = DutySettings()
    retention = environment.get("JOB_RETENTION_SECS") or str(default.retention_s)
    restart = (environment.get("RESTART_ZOMBIE_JOBS") or "true").lower()
    if not retention.replace(".", "", 1).isdigit() or float(retention) <= 0:
        raise UsageError(f"JOB_RETENTION_SECS={retention!r} can't be used; give a number of seconds above 0")
    if restart not in ("true", "false"):
        raise UsageError(f"RESTART_ZOMBIE_JOBS={restart!r} can't be used; give true or false")
    return msgspec.structs.replace(default, retention_s=float(retention), restart_lost=restart == "true")


def _listening() -> socket.socket:
    """Return the socket that `up` opened for us, or one for HOST and PORT."""
    inherited = os.environ.pop("MILLHAND_LISTEN_FD", None)
    if inherited is not None:
        listening = socket.socket(fileno=int(inherited))
        os.set_inheritable(listening.fileno(), False)
        return listening
    host = os.environ.get("HOST") or "127.0.0.1"
    text = os.environ.get("PORT") or "8000"
    if not text.isdigit() or int(text) > 65535:  # noqa: PLR2004 - ports have 16 bits
        raise UsageError(f"PORT={text!r} can't be used; give a number up to 65535")
    return open_socket(host, int(text), instead="PORT")
