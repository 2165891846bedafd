"""Which distributions a Python script needs, and which Python: said by itself, or inferred from what it imports.

In order: a `# requirements:` block, a PEP 723 block (`# /// script`), else the imports, less the standard library and
other scripts, plus a `# extra_requirements:` block; `import x  # pin: y==1` says what an import stands for.
`# py: >=3.12` or `# py312` choose the Python. What imported scripts need is added by the same rules.
"""

from __future__ import annotations

import functools
import re
import sys
import tomllib
from collections.abc import Iterable
from typing import Any

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.distributions import distribution_of
from millhand.runtimes.dependencies.imports import PythonImport, is_script_import, python_imports

_BLOCK = re.compile(r"^#\s*(?P<extra>extra_)?requirements:\s*$", re.IGNORECASE)
_PY = re.compile(r"^#[ \t]*py:(?P<spec>[<>=~!0-9.,* \t]+)$", re.MULTILINE)
_PY_SHORT = re.compile(r"^#[ \t]*py(?P<major>3)(?P<minor>\d{1,2})[ \t]*$", re.MULTILINE)
_NO_CACHE = re.compile(r"^#[ \t]*no_cache[ \t]*$", re.MULTILINE)
_PIN = re.compile(
    r"^[ \t]*(?:import|from)[ \t]+(?P<module>[\w.]+).*#[ \t]*(?P<re>re)?pin:[ \t]*(?P<wanted>\S.*)$",
    re.MULTILINE,
)
_METADATA = re.compile(r"(?m)^# /// script\s*$\s(?P<content>(^#(| .*)$\s)+)^# ///\s*$")
_HASH = re.compile(r"\s+--hash=\S+")
_NAMESPACES = ("google", "azure")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be resolved."""

    requirements: tuple[str, ...]  # sorted, each once
    python: str = ""  # PEP 440 specifiers; "" takes the default Python
    fresh: bool = False  # don't take a resolution that was kept
    inferred: tuple[str, ...] = ()  # those that nobody wrote down


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A lock as it is kept with a script."""

    python: str | None  # 3.x
    requirements: tuple[str, ...]


def wanted(code: str, modules: Iterable[str] = ()) -> Wanted:
    """Return what code and the scripts that it imports need; raises LockFailedError for what can't be asked for."""
    parts = [_wanted_by(source) for source in (code, *modules)]
    requirements = {check_requirement(text) for part in parts for text in part.requirements}
    return Wanted(
        requirements=tuple(sorted(requirements, key=str.lower)),
        python=",".join(sorted({part.python for part in parts if part.python})),
        fresh=any(part.fresh for part in parts),
        inferred=tuple(sorted({name for part in parts for name in part.inferred})),
    )


def check_requirement(text: str) -> str:
    """Return a requirement in its normal form (PEP 508); raises LockFailedError for options, paths and nonsense."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise LockFailedError(
            f"{text!r} is not a requirement; write a name with versions, like `six==1.16` (PEP 508), "
            "and no options of pip and no paths"
        ) from None
    if requirement.url and not re.match(r"(git\+)?https?://", requirement.url):
        raise LockFailedError(
            f"{text!r} is not on the network; only http(s) and git+http(s) addresses can be installed"
        )
    return str(requirement)


def write_lock(python: str, requirements: Iterable[str]) -> str:
    """Return the text of a lock."""
    return "\n".join([f"# py: {python}", *requirements]) + "\n"


@functools.lru_cache(maxsize=1024)  # asked for each job; parsing a long one takes milliseconds
def read_lock(text: str) -> Lock:
    """Read a lock, ours or one that a client sent; raises LockFailedError where it could not be one."""
    joined = _HASH.sub("", text.replace("\\\n", " "))
    lines = [line.split(" #")[0].strip() for line in joined.splitlines()]
    return Lock(
        python=_python_of(text, exact=True),
        requirements=tuple(check_requirement(line) for line in lines if line and not line.startswith("#")),
    )


def _wanted_by(code: str) -> Wanted:
    named = _block(code, extra=False)
    metadata = _metadata(code) if named is None else {}
    python = _python_of(code) or str(metadata.get("requires-python", ""))
    if named is None and "dependencies" in metadata:
        named = [str(item) for item in metadata["dependencies"]]
    inferred = _inferred(code) if named is None else {}
    return Wanted(
        requirements=(*(named or ()), *inferred, *(_block(code, extra=True) or ())),
        python=_checked_python(python),
        fresh=_NO_CACHE.search(code) is not None,
        inferred=tuple(inferred),
    )


def _block(code: str, *, extra: bool) -> list[str] | None:
    """Return the lines of a block of comments, or None where there is no such block."""
    lines = iter(code.splitlines())
    for line in lines:
        head = _BLOCK.match(line.strip())
        if head is None or bool(head["extra"]) != extra:
            continue
        found = []
        for item in lines:
            if not item.startswith("#") or _BLOCK.match(item):
                break
            if not (_PY.match(item) or _PY_SHORT.match(item) or _NO_CACHE.match(item)):
                found.append(item.lstrip("#").split(" #")[0].strip())
        return [item for item in found if item]
    return None


def _metadata(code: str) -> dict[str, Any]:
    match = _METADATA.search(f"{code}\n")
    if match is None:
        return {}
    content = "\n".join(line.removeprefix("#").removeprefix(" ") for line in match["content"].splitlines())
    try:
        found = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise LockFailedError(f"the `# /// script` block is not TOML: {error}") from None
    if not isinstance(found.get("dependencies", []), list):
        raise LockFailedError("`dependencies` in the `# /// script` block must be a list of requirements")
    return found


def _python_of(text: str, *, exact: bool = False) -> str | None:
    """Return the Python that annotations ask for: specifiers, or where it is exact, `3.x`."""
    if (short := _PY_SHORT.search(text)) is not None:
        version = f"{short['major']}.{short['minor']}"
        return version if exact else f"=={version}.*"
    match = _PY.search(text)
    if match is None:
        return None
    spec = match["spec"].strip()
    if exact:
        return ".".join(spec.lstrip("=~").split(".")[:2])
    parts = spec.split(".")
    return f"=={parts[0]}.{parts[1]}.*" if re.fullmatch(r"3\.\d+(\.\d+)?", spec) else spec


def _checked_python(spec: str) -> str:
    try:
        return str(SpecifierSet(spec))
    except InvalidSpecifier:
        raise LockFailedError(f"{spec!r} does not name a Python; write it like `# py: >=3.11`") from None


def _inferred(code: str) -> dict[str, None]:
    """Return the requirements that stand behind the imports, in order."""
    pins = {
        match["module"].split(".")[0]: match["wanted"].rstrip()
        for match in sorted(_PIN.finditer(code), key=_repin_last)
    }
    found: dict[str, None] = {}
    for item in python_imports(code):
        root = item.module.split(".")[0]
        if is_script_import(item) or not root or root in sys.stdlib_module_names:
            continue
        if root in pins:
            found[pins[root]] = None
        else:
            found |= {name: None for module in _modules(item) if (name := distribution_of(module))}
    return found


def _repin_last(match: re.Match[str]) -> bool:
    return match["re"] is not None


def _modules(item: PythonImport) -> list[str]:
    """Return the modules an import names; in a shared namespace, `from google.cloud import storage` names a deeper one."""
    if item.names and item.module in (*_NAMESPACES, "google.cloud"):
        return [f"{item.module}.{name}" for name in item.names]
    return [item.module]
