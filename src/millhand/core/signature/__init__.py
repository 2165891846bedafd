"""What a script asks of its caller: the parameters of its main function, read from the code without running it."""

from __future__ import annotations

from collections.abc import Callable

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.signature import bash, go, postgresql, python, typescript
from millhand.core.signature.check import check_args
from millhand.core.signature.model import MissingMainError, Param, Signature

__all__ = ["MissingMainError", "Param", "Signature", "check_args", "parse_signature"]

_PARSERS: dict[Language, Callable[[str, str], Signature]] = {
    Language.PYTHON3: python.parse,
    Language.BASH: bash.parse,
    Language.BUN: typescript.parse,
    Language.DENO: typescript.parse,
    Language.NATIVETS: typescript.parse,
    Language.GO: go.parse,
    Language.POSTGRESQL: postgresql.parse,
}


def parse_signature(language: Language, code: str, entrypoint: str | None = None) -> Signature:
    """Return what the entry function (`main`, where none is named) takes.

    Raises BadRequestError, with the line, where the code can't be read, and MissingMainError (one of its kind) where it
    can be read but has no such function: such a script can be imported by others and can't be run by itself.
    Bash and SQL have no functions: their parameters stand in header lines, and the entrypoint means nothing to them.
    """
    try:
        return _PARSERS[language](code, entrypoint or "main")
    except RecursionError:
        raise BadRequestError(f"the {language} code is nested too deeply to be read") from None
