"""Scripts: code with a path, in a language, at a version named by its hash."""

from __future__ import annotations

import enum
import hashlib
import re
from datetime import datetime
from typing import Any

import msgspec

from millhand.core.errors import BadRequestError
from millhand.core.ids import hash_from_hex


class Language(enum.StrEnum):
    """A language this release runs; the value is its name on the wire."""

    PYTHON3 = "python3"
    BASH = "bash"
    BUN = "bun"
    DENO = "deno"
    NATIVETS = "nativets"  # TypeScript that only fetches: Bun without dependencies, on the native tag
    GO = "go"
    POSTGRESQL = "postgresql"

    @property
    def default_tag(self) -> str:
        """Return the tag of jobs in this language that name none."""
        return str(self.value)


FILE_ENDINGS: dict[str, Language] = {
    ".py": Language.PYTHON3,
    ".sh": Language.BASH,
    ".bun.ts": Language.BUN,
    ".deno.ts": Language.DENO,
    ".fetch.ts": Language.NATIVETS,
    ".ts": Language.BUN,
    ".go": Language.GO,
    ".pg.sql": Language.POSTGRESQL,
    ".sql": Language.POSTGRESQL,
}

# Names under which clients know languages that run on one of ours.
_ALIASES = {"bunnative": Language.NATIVETS}
_MAX_PATH_LENGTH = 255
_PATH = re.compile(r"(u|f)/[A-Za-z0-9_.@-]+(/[A-Za-z0-9_.@-]+)+")


def parse_language(text: str) -> Language:
    """Return the language of a wire name; raises BadRequestError that lists the known ones."""
    if text in _ALIASES:
        return _ALIASES[text]
    try:
        return Language(text)
    except ValueError:
        known = ", ".join(Language)
        raise BadRequestError(f"unknown language {text!r}; this server runs {known}") from None


def language_of_file(name: str) -> Language:
    """Return the language of a file by its ending, the longest first; raises BadRequestError for others."""
    for ending in sorted(FILE_ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return FILE_ENDINGS[ending]
    raise BadRequestError(f"can't tell the language of {name!r}; known endings: {', '.join(FILE_ENDINGS)}")


def check_path(path: str) -> str:
    """Return a script path, or raise BadRequestError: `u/<user>/<name>` or `f/<folder>/<name>`, no `..`, not too long."""
    if (
        len(path) > _MAX_PATH_LENGTH
        or not _PATH.fullmatch(path)
        or any(part in (".", "..") for part in path.split("/"))
    ):
        raise BadRequestError(
            f"bad path {path!r}: a path is u/<user>/<name> or f/<folder>/<name>, of letters, digits and _ . @ -"
        )
    return path


class NewScript(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A script as a client deploys it (wire: NewScript). Unknown fields are tolerated: clients' versions differ."""

    path: str
    content: str
    language: str
    summary: str = ""
    description: str = ""
    parent_hash: str | None = None
    schema: dict[str, Any] | None = None
    is_template: bool | None = None
    lock: str | None = None  # "" means: no dependencies, nothing to resolve; absent means: resolve them
    kind: str | None = None
    tag: str | None = None
    envs: list[str] | None = None  # KEY=VALUE, set in the environment of each run
    cache_ttl: int | None = None  # seconds
    timeout: int | None = None  # seconds
    priority: int | None = None  # 1..100
    concurrent_limit: int | None = None
    concurrency_time_window_s: int | None = None
    concurrency_key: str | None = None
    dedicated_worker: bool | None = None
    ws_error_handler_muted: bool | None = None
    restart_unless_cancelled: bool | None = None
    delete_after_use: bool | None = None
    deployment_message: str | None = None
    visible_to_runner_only: bool | None = None
    no_main_func: bool | None = None
    has_preprocessor: bool | None = None
    codebase: str | None = None
    on_behalf_of_email: str | None = None
    labels: list[str] | None = None


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One deployed version of a script. Content, language and options never change; the lock is filled in once."""

    hash: int
    workspace_id: str
    path: str
    content: str
    language: Language
    summary: str
    description: str
    schema: msgspec.Raw | None
    lock: str | None  # None until its dependencies job has ended
    lock_error: str | None
    lock_job_id: str | None
    parent_hashes: tuple[int, ...]
    kind: str
    tag: str | None
    envs: tuple[str, ...]
    created_by: str
    created_at: datetime
    archived: bool
    deleted: bool
    options: ScriptOptions


class ScriptOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rest of a script's settings, kept together so that new ones need no new column."""

    cache_ttl: int | None = None
    timeout: int | None = None
    priority: int | None = None
    concurrent_limit: int | None = None
    concurrency_time_window_s: int | None = None
    concurrency_key: str | None = None
    dedicated_worker: bool | None = None
    ws_error_handler_muted: bool = False
    restart_unless_cancelled: bool | None = None
    delete_after_use: bool | None = None
    deployment_message: str | None = None
    visible_to_runner_only: bool | None = None
    no_main_func: bool | None = None
    has_preprocessor: bool = False
    codebase: str | None = None
    on_behalf_of_email: str | None = None
    is_template: bool = False
    labels: tuple[str, ...] = ()


def script_hash(workspace_id: str, new: NewScript, parent: int | None) -> int:
    """Return the hash that names this version: 64 bits of SHA-256 over the workspace, the parent and all that was sent."""
    body = msgspec.json.encode((workspace_id, parent, new), order="sorted")
    return hash_from_hex(hashlib.sha256(body).hexdigest()[:16])
