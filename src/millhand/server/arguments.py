"""Arguments of a run, from the body of a request or its query, checked to be a JSON object in valid UTF-8."""

from __future__ import annotations

import base64
import binascii

import msgspec
from litestar.datastructures import Headers

from millhand.core.errors import BadRequestError, TooLargeError
from millhand.core.job import MAX_JSON_BYTES

_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read(body: bytes) -> bytes:
    """Return the arguments of a body: a JSON object, as it came; nothing means none. Raises BadRequestError."""
    if not body or body == b"{}":
        return b"{}"
    if len(body) > MAX_JSON_BYTES:
        raise TooLargeError(f"the arguments are {len(body):,} bytes long; at most {MAX_JSON_BYTES:,} are allowed")
    try:
        body.decode()
        _object.decode(body)
    except UnicodeDecodeError as error:
        raise BadRequestError(f"the arguments are not valid UTF-8 at byte {error.start}") from None
    except msgspec.ValidationError:
        raise BadRequestError('the arguments must be a JSON object, like {"name": "value"}') from None
    except msgspec.DecodeError as error:
        raise BadRequestError(f"the arguments are not JSON: {error}") from None
    except RecursionError:
        raise BadRequestError("the arguments are nested too deeply") from None
    return body


def from_payload(payload: str | None) -> bytes:
    """Return the arguments of a `payload` parameter: a JSON object in base64, the kind for URLs or the other."""
    if not payload:
        return b"{}"
    text = payload.replace("-", "+").replace("_", "/").replace(" ", "+").rstrip("=")
    try:
        return read(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except binascii.Error:
        raise BadRequestError("payload is not base64") from None


def with_headers(args: bytes, include: str | None, headers: Headers) -> bytes:
    """Return arguments with those request headers that `include_header` names, `X-My-Key` as `x_my_key`."""
    if not include:
        return args
    names = [name.strip().lower() for name in include.split(",")]
    if secret := _SECRET.intersection(names):
        raise BadRequestError(f"include_header can't name {min(secret)}: it carries the token of the caller")
    found = {name.replace("-", "_"): headers[name] for name in names if name and name in headers}
    if not found:
        return args
    return msgspec.json.encode({**_object.decode(args), **found})
