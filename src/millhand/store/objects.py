"""Object storage: S3 and what speaks its API, Google Cloud Storage, Azure, or a folder. Whole objects by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from millhand.core.errors import MillhandError, ObjectMissingError, ObjectStoreError

log = structlog.get_logger(__name__)

CHECK_KEY = "millhand.check"
_FORMS = "give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "file")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
_CONNECT_S = 5
_REQUEST_S = 60
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class ObjectStore:
    """Objects below one URL. Raises ObjectStoreError where they can't be had: that may be over in a moment."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, in place of what was there; when this returns it lasts."""
        with _translated("write", key):
            await obstore.put_async(self._store, key, data, use_multipart=False)

    async def get(self, key: str) -> bytes:
        """Read an object; raises ObjectMissingError where there is none of that name."""
        with _translated("read", key):
            answer = await obstore.get_async(self._store, key)
            return bytes(await answer.bytes_async())

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are deleted already."""
        try:
            with _translated("delete", keys[0]):
                await obstore.delete_async(self._store, keys)
        except ObjectMissingError:  # which may have kept it from the others
            for key in keys:
                with contextlib.suppress(ObjectMissingError), _translated("delete", key):
                    await obstore.delete_async(self._store, key)

    async def check(self) -> None:
        """Write, read and delete a small object: whoever set this up hears at once whether it works."""
        await self.put(CHECK_KEY, b"millhand")
        await self.get(CHECK_KEY)
        await self.delete([CHECK_KEY])


class FolderStore(ObjectStore):
    """Objects as files of a folder: for one server, or several that share the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder, automatic_cleanup=True))
        self._folder = folder

    async def put(self, key: str, data: bytes) -> None:
        """Write a file, and have it and its folders on disk: the database forgets the rows in favour of it."""
        await super().put(key, data)
        with _translated("write", key):
            await asyncio.to_thread(self._sync, self._folder / key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete files, and what a crash left of their making."""
        await super().delete(keys)
        await asyncio.to_thread(self._clear, keys)

    def _sync(self, path: Path) -> None:
        while path != self._folder.parent:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path = path.parent

    def _clear(self, keys: Sequence[str]) -> None:
        for path in [self._folder / key for key in keys]:
            for staged in path.parent.glob(f"{path.name}#*"):
                staged.unlink(missing_ok=True)


def open_store(url: str, environment: Mapping[str, str]) -> ObjectStore:
    """Return the object store of a URL, with the credentials that its cloud's usual variables give.

    Raises MillhandError for a URL that names none. Nothing is asked of the store yet.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not (parts.path if parts.scheme == "file" else parts.netloc):
        raise MillhandError(f"MILLHAND_OBJECT_STORE={url!r} can't be used; {_FORMS}")
    if parts.scheme == "file":
        return FolderStore(_closed_folder(Path(unquote(parts.path))))
    try:
        return ObjectStore(from_url(url, client_options=_client_options(environment), retry_config=_RETRIES))
    except (BaseError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise MillhandError(f"MILLHAND_OBJECT_STORE={url!r} can't be used: {reason}; {_FORMS}") from None


def _client_options(environment: Mapping[str, str]) -> Any:
    """Allow plain http where the operator named such an endpoint: one of their own network."""
    endpoints = [environment.get(name, "") for name in _ENDPOINTS]
    return {
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "timeout": timedelta(seconds=_REQUEST_S),
        "allow_http": any(endpoint.startswith("http://") for endpoint in endpoints),
    }


def _closed_folder(folder: Path) -> Path:
    """Return the folder, made where it is missing; raises MillhandError where others could read the logs in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise MillhandError(f"MILLHAND_OBJECT_STORE: can't use the folder {folder}: {error.strerror}") from None
    if mode & _OTHERS:
        raise MillhandError(
            f"MILLHAND_OBJECT_STORE: the folder {folder} is open to other users, and logs would be; chmod 700 {folder}"
        )
    return folder.resolve()


@contextlib.contextmanager
def _translated(what: str, key: str) -> Iterator[None]:
    """Raise our errors in place of the library's; the words that name hosts and buckets go to the service log only."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        log.warning("objects.missing", what=what, key=key, error=str(error))
        raise ObjectMissingError(
            f"object storage does not have {key}; restore it there, or see whether MILLHAND_OBJECT_STORE is still the same"
        ) from None
    except (BaseError, OSError) as error:
        log.warning("objects.unavailable", what=what, key=key, error=str(error))
        raise ObjectStoreError(
            "object storage can't be used right now; try again in a moment (the server's log says more)"
        ) from None
