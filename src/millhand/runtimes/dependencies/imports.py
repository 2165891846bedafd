"""What code imports, read without running it: modules of Python, specifiers of TypeScript, packages of Go, other scripts."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from posixpath import dirname, normpath

import msgspec
from tree_sitter import Node

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.signature.literals import constant
from millhand.core.signature.tree import child, named, read_go, read_typescript, text, walk

_TYPESCRIPT = (Language.BUN, Language.DENO, Language.NATIVETS)
_SCRIPT_ROOTS = ("f", "u")
_MIN_PATH_PARTS = 3  # f/<folder>/<name>
_IMPORT_LINE = re.compile(r"^[ \t]*(?:import|from)[ \t]+(?P<module>\.*[\w.]*)", re.MULTILINE)
_ENDING = re.compile(r"\.(?:m|c)?[jt]sx?$")


class PythonImport(msgspec.Struct, frozen=True, kw_only=True):
    """One imported module, `from module import names`."""

    module: str
    level: int = 0  # dots before it
    names: tuple[str, ...] = ()
    line: int = 0


class Specifier(msgspec.Struct, frozen=True, kw_only=True):
    """What a TypeScript import names, and where in the code (in bytes) that text stands, quotes included."""

    text: str
    start: int
    end: int
    type_only: bool = False


def imported_scripts(language: Language, code: str, path: str | None) -> set[str]:
    """Return the paths of other scripts that this code may import.

    What Python writes as `from f.folder.a import b` names the script `f/folder/a` or `f/folder/a/b`; both are given.
    A path under which nobody has deployed anything is to be passed over: the import itself then tells what is missing.
    """
    if language is Language.PYTHON3:
        found = {script for item in python_imports(code) for script in _python_scripts(item, path)}
    elif language in _TYPESCRIPT:
        found = {script for item in typescript_imports(code) for script in _typescript_scripts(item.text, path)}
    else:
        return set()
    return {script for script in found if script != path}


def python_imports(code: str) -> list[PythonImport]:
    """Return the imports of a module at any depth, but for those that only type checkers see.

    Code that our Python can't parse, maybe because it is written for a newer one, is read line by line.
    """
    try:
        return list(_tree_imports(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [_line_import(match["module"]) for match in _IMPORT_LINE.finditer(code) if match["module"]]


def _tree_imports(module: ast.Module) -> Iterator[PythonImport]:
    nodes: list[ast.AST] = [module]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (PythonImport(module=alias.name, line=node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield PythonImport(module=node.module or "", level=node.level, names=names, line=node.lineno)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes.extend(node.orelse)
        else:
            nodes.extend(ast.iter_child_nodes(node))


def _line_import(module: str) -> PythonImport:
    bare = module.lstrip(".")
    return PythonImport(module=bare, level=len(module) - len(bare))


def _python_scripts(item: PythonImport, path: str | None) -> Iterator[str]:
    parts = [part for part in item.module.split(".") if part]
    if item.level:
        base = (path or "").split("/")[: -item.level]
        parts = [*base, *parts] if base else []
    if not parts or parts[0] not in _SCRIPT_ROOTS:
        return
    if len(parts) >= _MIN_PATH_PARTS:
        yield "/".join(parts)
    if len(parts) >= _MIN_PATH_PARTS - 1:
        yield from ("/".join([*parts, name]) for name in item.names if name != "*")


def is_script_import(item: PythonImport) -> bool:
    """Tell whether a Python import means another script rather than a package."""
    return item.level > 0 or item.module.split(".")[0] in _SCRIPT_ROOTS


def typescript_imports(code: str) -> list[Specifier]:
    """Return what TypeScript code imports: statements, re-exports, `import(…)` and `require(…)` of constant texts."""
    tree = _tree(read_typescript, code)
    found = []
    for node in walk(tree) if tree is not None else ():
        source = _source_of(node)
        if source is not None and source.type == "string":
            type_only = node.type != "call_expression" and any(kid.type == "type" for kid in node.children)
            found.append(
                Specifier(text=constant(source), start=source.start_byte, end=source.end_byte, type_only=type_only)
            )
    return found


def _source_of(node: Node) -> Node | None:
    if node.type in ("import_statement", "export_statement"):
        return child(node, "source")
    if node.type == "call_expression" and text(child(node, "function")) in ("import", "require", "require.resolve"):
        return next(iter(named(child(node, "arguments"))), None)
    return None


def _typescript_scripts(specifier: str, path: str | None) -> Iterator[str]:
    if specifier.startswith("/"):
        target = specifier[1:]
    elif specifier.startswith(("./", "../")) and path:
        target = normpath(f"{dirname(path)}/{specifier}")
    else:
        return
    target = _ENDING.sub("", target)
    if (
        target.split("/")[0] in _SCRIPT_ROOTS
        and target.count("/") >= _MIN_PATH_PARTS - 1
        and ".." not in target.split("/")
    ):
        yield target


def go_imports(code: str) -> list[str]:
    """Return the import paths of Go code."""
    tree = _tree(read_go, code)
    specs = [node for node in walk(tree) if node.type == "import_spec"] if tree is not None else []
    return [text(child(spec, "path"))[1:-1] for spec in specs]


def _tree(read: Callable[[str], Node], code: str) -> Node | None:
    """Return a tree, or None for nonsense: that imports nothing, and its compiler will say what is wrong with it."""
    try:
        return read(code)
    except BadRequestError:
        return None
