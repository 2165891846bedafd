"""Bodies that carry arguments: read by us, so that arguments stay the bytes that came; described for the API's document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec
from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
)

from millhand.core.errors import BadRequestError
from millhand.server.request import ApiRequest

T = TypeVar("T")

_TEXT = Schema(type=OpenAPIType.STRING)
_ARGS = Schema(type=OpenAPIType.OBJECT, description="The arguments of the script, by name.")
_PREVIEW: dict[str, Schema | Reference] = {
    "content": _TEXT,
    "language": _TEXT,
    "path": _TEXT,
    "args": _ARGS,
    "tag": _TEXT,
    "lock": _TEXT,
    "kind": Schema(type=OpenAPIType.STRING, enum=["code", "identity", "noop"]),
}
_PREVIEW_BODY = Schema(type=OpenAPIType.OBJECT, properties=_PREVIEW)
_ITEM_BODY = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        **_PREVIEW,
        "kind": Schema(type=OpenAPIType.STRING, enum=["script", "preview", "noop", "identity"]),
        "hash": _TEXT,
        "timeout": Schema(type=OpenAPIType.INTEGER),
        "priority": Schema(type=OpenAPIType.INTEGER),
        "scheduled_for": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
    },
)
_MANY_BODY = Schema(
    type=OpenAPIType.OBJECT,
    properties={"kind": _TEXT, "path": _TEXT, "hash": _TEXT, "tag": _TEXT, "args": _ARGS, "rawscript": _PREVIEW_BODY},
    required=["kind"],
)


_CHOICES = Schema(
    type=OpenAPIType.OBJECT,
    description="By path: input_transforms (static ones), use_latest_version.",
)
_RERUNS_BODY = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "job_ids": Schema(type=OpenAPIType.ARRAY, items=_TEXT),
        "script_options_by_path": _CHOICES,
        "flow_options_by_path": _CHOICES,
    },
    required=["job_ids"],
)


async def read(request: ApiRequest, kind: type[T]) -> T:
    """Return the body of a request as a record; raises BadRequestError saying what is wrong where."""
    body = await request.body()
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequestError("the body is nested too deeply") from None


def _json(schema: Schema) -> RequestBody:
    return RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=schema)})


@dataclass
class TakesArgs(Operation):
    """Takes the arguments of a script as its body."""

    def __post_init__(self) -> None:
        self.request_body = _json(_ARGS)


@dataclass
class TakesPreview(Operation):
    """Takes code with its arguments."""

    def __post_init__(self) -> None:
        self.request_body = _json(_PREVIEW_BODY)


@dataclass
class TakesBatch(Operation):
    """Takes many jobs."""

    def __post_init__(self) -> None:
        self.request_body = _json(Schema(type=OpenAPIType.ARRAY, items=_ITEM_BODY))


@dataclass
class TakesReruns(Operation):
    """Takes the ids of jobs, and what is to differ."""

    def __post_init__(self) -> None:
        self.request_body = _json(_RERUNS_BODY)


@dataclass
class TakesBatchOf(Operation):
    """Takes one job to make many of."""

    def __post_init__(self) -> None:
        self.request_body = _json(_MANY_BODY)
