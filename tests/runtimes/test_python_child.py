"""The byte-code that is kept for the next run of a script."""

from __future__ import annotations

from millhand.runtimes import python_child
from millhand.runtimes.python_child import CompiledCode


def test_asked_for_at_the_second_run():
    """Nothing is asked of a script's first run, the byte-code of its second, and its third gets it."""
    compiled = CompiledCode()
    assert compiled.get("f/a/b", "code") == b""
    assert compiled.get("f/a/b", "code") is None
    compiled.keep("f/a/b", "code", b"compiled")
    assert compiled.get("f/a/b", "code") == b"compiled"


def test_kept_by_path_and_text():
    """Other code, and the same code under another path, is another script."""
    compiled = CompiledCode()
    compiled.keep("f/a/b", "code", b"compiled")
    assert compiled.get("f/a/b", "other code") == b""
    assert compiled.get("f/a/c", "code") == b""
    assert compiled.get(None, "code") == b""


def test_bounded(monkeypatch):
    """What was used longest ago makes room; what is too large for it alone is not kept."""
    monkeypatch.setattr(python_child, "_MAX_COMPILED_BYTES", 40)
    compiled = CompiledCode()
    for name in "abcd":
        compiled.keep(name, "code", b"x" * 10)
    assert compiled.get("a", "code") == b"x" * 10
    compiled.keep("e", "code", b"x" * 10)
    compiled.keep("large", "code", b"x" * 11)
    assert [bool(compiled.get(name, "code")) for name in ("a", "b", "c", "d", "e", "large")] == [
        True, False, True, True, True, False,
    ]  # fmt: skip


def test_seen_is_bounded(monkeypatch):
    """Scripts that never come again are forgotten."""
    monkeypatch.setattr(python_child, "_MAX_SEEN", 2)
    compiled = CompiledCode()
    for name in "abc":
        compiled.get(name, "code")
    assert compiled.get("a", "code") == b""
    assert compiled.get("c", "code") is None
