"""Which tag a job gets."""

from __future__ import annotations

import pytest

from millhand.core.errors import BadRequestError
from millhand.core.routing import job_tag
from millhand.core.script import Language


@pytest.mark.parametrize(
    ("asked", "of_script", "args", "tag"),
    [
        (None, None, b"{}", "python3"),
        ("", "", b"{}", "python3"),
        (None, "gpu", b"{}", "gpu"),
        ("cpu", "gpu", b"{}", "cpu"),
        ("$workspace-x", None, b"{}", "main-x"),
        ("r-$args[a.b]", None, b'{"a":{"b":"eu"}}', "r-eu"),
        ("r-$args[n]", None, b'{"n":5}', "r-5"),
        ("r-$args[missing.deep]", None, b"{}", "r-"),
        ("r-$args[a]", None, b'{"a":{"b":1}}', "r-"),
    ],
)
def test_tags(asked, of_script, args, tag):
    """The tag asked for wins over the script's, and that over the language's; places in it are filled in."""
    assert job_tag(asked, of_script, Language.PYTHON3, workspace_id="main", args=args) == tag


@pytest.mark.parametrize("tag", ["a b", "$args[a]", "x" * 101, "ä", "-x"])
def test_what_is_no_tag_is_refused(tag):
    """A tag of other characters, or that comes out empty, is refused."""
    with pytest.raises(BadRequestError):
        job_tag(tag, None, Language.BASH, workspace_id="main", args=b"{}")
