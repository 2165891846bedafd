"""How services log: events with fields on stderr, in colours for people, as JSON for machines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import structlog

from millhand.core.errors import MillhandError

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(environment: Mapping[str, str]) -> None:
    """Set up logging as LOG_LEVEL and JSON_FMT say; raises MillhandError for a level there is not."""
    name = environment.get("LOG_LEVEL", "info").lower()
    if name not in _LEVELS:
        raise MillhandError(f"LOG_LEVEL={name!r} can't be used; give one of {', '.join(_LEVELS)}")
    as_json = environment.get("JSON_FMT", "").lower() in ("1", "true", "yes", "on")
    renderer = structlog.processors.JSONRenderer() if as_json else _console()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[name]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # a database that is away: we say so ourselves, in a line


def _console() -> structlog.dev.ConsoleRenderer:
    """Return the renderer for people. Stack traces without the values of variables: tokens and arguments are among them."""
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
