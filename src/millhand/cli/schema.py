"""The schema of DATABASE_URL: brought up to date by `millhand migrate`, checked by each part before it starts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import structlog

from millhand.cli import service_logs
from millhand.cli.usage import UsageError
from millhand.core.errors import MillhandError
from millhand.store.migrate import check_schema, migrate
from millhand.store.pool import CONNECTION_ERRORS, Database, backoff_s

log = structlog.get_logger()


def database_url(environment: Mapping[str, str]) -> str:
    """Return DATABASE_URL; raises UsageError where it is not set."""
    url = environment.get("DATABASE_URL")
    if not url:
        raise UsageError(
            "set DATABASE_URL, for example postgresql://user:password@host/database (`millhand up` needs none)"
        )
    return url


def migrate_schema() -> None:
    """Apply what is missing and say what it was."""
    url = database_url(os.environ)
    service_logs.configure({"LOG_LEVEL": "warning", **os.environ})
    try:
        applied = asyncio.run(migrate(url))
    except MillhandError:
        raise
    except Exception as error:  # noqa: BLE001 - the driver's words are the best there are
        raise MillhandError(f"can't migrate the database of DATABASE_URL: {error or type(error).__name__}") from None
    print("\n".join(f"applied {name}" for name in applied) if applied else "the schema is up to date")


async def wait_for_database(url: str) -> None:
    """Wait until the database can be reached; raises SchemaVersionError where its schema is not this release's."""
    failures = 0
    while True:
        try:
            async with Database(url, application_name="millhand start", max_size=1) as database:
                await check_schema(database)
                return
        except CONNECTION_ERRORS as error:
            failures += 1
            log.warning("database.unreachable", error=str(error) or type(error).__name__)
            await asyncio.sleep(backoff_s(failures))
        except MillhandError:
            raise
        except Exception as error:  # noqa: BLE001 - a wrong password, no such database: the driver's words are the best
            raise MillhandError(f"the database of DATABASE_URL refuses us: {error}") from None
