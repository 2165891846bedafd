"""Find the code of a job: sent along with it, or deployed; and the scripts that it imports, and they in turn."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from millhand.core.errors import LockFailedError, NotFoundError
from millhand.core.ids import hash_to_hex
from millhand.core.job import ClaimedJob, JobKind
from millhand.core.script import Language, Script
from millhand.core.worker import JobSource
from millhand.runtimes.dependencies import imported_scripts

MAX_MODULES = 500  # scripts that one script may pull in


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    language: Language
    text: str
    path: str | None
    lock: str | None  # None: resolve it now
    envs: tuple[str, ...] = ()
    modules: dict[str, str] = {}


class CodeLoader:
    """Fetches code from the source; may raise SourceUnavailableError."""

    def __init__(self, source: JobSource) -> None:
        self._source = source

    async def load(self, job: ClaimedJob) -> Code:
        """Return the code of a job; raises NotFoundError, or LockFailedError where its deployment failed."""
        code = await self._deployed(job) if job.runnable_hash is not None and job.raw_code is None else _sent(job)
        modules = await self._modules(job.workspace_id, code)
        return msgspec.structs.replace(code, modules=modules) if modules else code

    async def _deployed(self, job: ClaimedJob) -> Code:
        assert job.runnable_hash is not None
        script = await self._source.script(job.workspace_id, job.runnable_hash)
        if script is None:
            raise NotFoundError(
                f"script {job.runnable_path} has no version {hash_to_hex(job.runnable_hash)} in workspace "
                f"{job.workspace_id}: it was deleted; deploy it again"
            )
        if script.lock_error and job.kind is not JobKind.DEPENDENCIES:
            raise LockFailedError(_failed_lock(script))
        return Code(
            language=script.language,
            text=script.content,
            path=script.path,
            lock=script.lock,
            envs=script.envs,
        )

    async def _modules(self, workspace_id: str, code: Code) -> dict[str, str]:
        """Return the sources of all scripts imported, near and far, by path. An unknown one is left to the import to report."""
        modules: dict[str, str] = {}
        found: list[tuple[str, str | None]] = [(code.text, code.path)]
        while found and len(modules) < MAX_MODULES:
            text, path = found.pop()
            for imported in sorted(_imports(code.language, text, path) - modules.keys()):
                script = await self._source.script_at(workspace_id, imported)
                if script is not None and script.path != code.path:
                    modules[imported] = script.content
                    found.append((script.content, imported))
        return modules


@lru_cache(maxsize=2000)
def _imports(language: Language, text: str, path: str | None) -> frozenset[str]:
    return frozenset(imported_scripts(language, text, path))


def _sent(job: ClaimedJob) -> Code:
    if job.raw_code is None or job.language is None:
        raise NotFoundError("the job has neither code nor the hash of a script; push it with one of them")
    return Code(language=job.language, text=job.raw_code, path=job.runnable_path, lock=job.raw_lock)


def _failed_lock(script: Script) -> str:
    return (
        f"the dependencies of {script.path} could not be resolved when it was deployed, so it can't run; "
        f"mend them and deploy it again:\n{script.lock_error}"
    )
