"""The HTTP server, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityRequirement, SecurityScheme
from litestar.types import ASGIApp, ControllerRouterHandler

import millhand
from millhand.core.clock import Clock, SystemClock
from millhand.core.job import MAX_JSON_BYTES
from millhand.core.objects import Objects
from millhand.server.auth import Authenticator, LoginLimiter
from millhand.server.errors import handlers
from millhand.server.hub import Hub
from millhand.server.observe import Metrics, Observer
from millhand.server.pusher import Pusher
from millhand.server.request import ApiRequest, Services, signed_in
from millhand.server.routes import auth, cancels, health, jobs, run, scripts, updates, users, workers, workspaces
from millhand.server.runnables import Runnables
from millhand.server.settings import ServerSettings
from millhand.server.tags import ServedTags
from millhand.store import migrate
from millhand.store.notify import Notifier
from millhand.store.pool import Database

Beside = Callable[[Database], contextlib.AbstractAsyncContextManager[object]]

_BODY_EXTRA_BYTES = 1024 * 1024  # a preview carries code beside its arguments


def create_app(
    database: Database,
    settings: ServerSettings,
    *,
    objects: Objects | None = None,
    beside: Sequence[Beside] = (),
    clock: Clock | None = None,
) -> Litestar:
    """Return the application; it opens the database and checks the schema when it is started.

    `objects` is the object storage where old parts of large logs are, if any.
    `beside` are makers of what runs along with it on the same database: the duties, where this process does them.
    """
    metrics = Metrics()

    def observed(app: ASGIApp) -> ASGIApp:
        return Observer(app, metrics)

    api = Router("/api", route_handlers=_routes(), guards=[signed_in])
    app = Litestar(
        [api, health.metrics],
        lifespan=[_lifespan(database, settings, objects, beside, clock or SystemClock())],
        middleware=[observed],
        exception_handlers=handlers(),
        request_class=ApiRequest,
        request_max_body_size=settings.body_limit_bytes,
        openapi_config=_openapi(),
        logging_config=None,
    )
    app.state.metrics = metrics
    return app


def _routes() -> list[ControllerRouterHandler]:
    return [
        auth.router,
        users.router,
        workspaces.router,
        scripts.router,
        run.router(max_body=MAX_JSON_BYTES + _BODY_EXTRA_BYTES),
        jobs.router,
        updates.router,
        cancels.router,
        workers.router,
        health.router,
    ]


def _lifespan(
    database: Database, settings: ServerSettings, objects: Objects | None, beside: Sequence[Beside], clock: Clock
) -> Callable[[Litestar], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def running(app: Litestar) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            app.state.services = await _start(stack, database, settings, objects, clock)
            for part in beside:
                await stack.enter_async_context(part(database))
            yield

    return running


async def _start(
    stack: contextlib.AsyncExitStack,
    database: Database,
    settings: ServerSettings,
    objects: Objects | None,
    clock: Clock,
) -> Services:
    await stack.enter_async_context(database)
    await migrate.check_schema(database)
    notifier = await stack.enter_async_context(Notifier(database))
    runnables = Runnables(database)
    hub = await stack.enter_async_context(Hub(database, on_scripts_changed=runnables.forget).running())
    secret = await migrate.setting(database, "jwt_secret")
    return Services(
        settings=settings,
        database=database,
        objects=objects,
        notifier=notifier,
        hub=hub,
        pusher=Pusher(database, notifier),
        runnables=runnables,
        served_tags=ServedTags(database),
        auth=Authenticator(database, job_secret=secret, trust_s=settings.token_cache_s),
        logins=LoginLimiter(clock),
        clock=clock,
    )


def _openapi() -> OpenAPIConfig:
    schemes: dict[str, Any] = {
        "bearerAuth": SecurityScheme(type="http", scheme="bearer"),
        "cookieAuth": SecurityScheme(type="apiKey", name="token", security_scheme_in="cookie"),
    }
    security: list[SecurityRequirement] = [{"bearerAuth": []}, {"cookieAuth": []}]
    return OpenAPIConfig(
        title="Millhand",
        version=millhand.__version__,
        description="Runs people's scripts on tag-routed workers, over PostgreSQL alone.",
        components=Components(security_schemes=schemes),
        security=security,
        render_plugins=[JsonRenderPlugin()],
        use_handler_docstrings=True,
    )
