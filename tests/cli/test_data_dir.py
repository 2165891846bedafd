"""Who holds a data directory."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from millhand.cli.data_dir import DataDir, HeldError, Holder, default_data_dir, write_private
from millhand.core.errors import MillhandError

HOLDER = Holder(pid=1234, since=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), url="http://127.0.0.1:8000", ready=True)


def test_a_second_holder_is_told_who_is_first(tmp_path):
    """The lock is taken once; who comes second hears pid, time and address."""
    first, second = DataDir(tmp_path), DataDir(tmp_path)
    first.hold()
    first.announce(HOLDER)
    with pytest.raises(HeldError, match=r"process 1234 since 2026.*http://127\.0\.0\.1:8000"):
        second.hold()
    assert second.holder() == HOLDER


def test_what_a_killed_holder_left_does_not_count(tmp_path):
    """Without the lock the file of a dead `up` means nothing, and the next one may start."""
    DataDir(tmp_path).announce(HOLDER)
    after = DataDir(tmp_path)
    assert after.holder() is None
    after.hold()
    assert after.is_held()
    after.release()
    assert not after.is_held()


def test_a_stack_ends_only_when_nobody_uses_it(tmp_path):
    """A client within `in_use` keeps the stack; afterwards it announces its end."""
    directory = DataDir(tmp_path)
    directory.hold()
    directory.announce(HOLDER)
    with directory.in_use():
        assert directory.is_used()
        assert not directory.retire_unless_used(HOLDER)
    assert directory.retire_unless_used(HOLDER)
    assert not directory.holder().ready


def test_private_files_are_private(tmp_path):
    """Tokens and passwords can be read by their owner only, also where a file stood before."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_that_can_not_be_made(tmp_path):
    """The message names the directory and the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MillhandError, match=r"can't use .*--data-dir"):
        DataDir(tmp_path / "file" / "below").hold()


def test_where_data_is_kept():
    """MILLHAND_DATA_DIR wins; else root's is a place that PostgreSQL's user can reach, others' is theirs."""
    assert default_data_dir({"MILLHAND_DATA_DIR": "/data"}) == Path("/data")
    usual = default_data_dir({"XDG_DATA_HOME": "/home/me/data"})
    assert usual == Path("/var/lib/millhand" if os.geteuid() == 0 else "/home/me/data/millhand")
