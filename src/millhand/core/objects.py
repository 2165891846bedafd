"""Object storage as the rest sees it: whole objects by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Objects(Protocol):
    """Objects by name. Raises ObjectStoreError where they can't be had: that may be over in a moment."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, in place of what was there; when this returns it lasts."""
        ...

    async def get(self, key: str) -> bytes:
        """Read an object; raises ObjectMissingError where there is none of that name."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are deleted already."""
        ...

    async def check(self) -> None:
        """Find out whether all of the above works."""
        ...
