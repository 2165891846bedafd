"""Where memory groups are made, and how peaks are found."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from millhand.runtimes.memory import MemoryGroups, PeakSampler, Process, Watched, processes

OWN = "9:memory:/box\n0::/box\n"


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """Return what looks like our own version 2 group, with memory delegated to it; the kernel's files are plain ones."""
    box = tmp_path / "box"
    box.mkdir()
    (box / "cgroup.controllers").write_text("cpu memory pids\n")
    (box / "cgroup.subtree_control").write_text("")
    (box / "cgroup.procs").write_text("")
    return box


def test_version_2_where_it_is_delegated(unified, tmp_path):
    """Memory is handed down to a group of ours, in which every job gets one with its limit and no swap."""
    groups = MemoryGroups.find(tmp_path, own="0::/box\n")
    assert groups.make(64 << 20) is not None
    base = next(unified.glob("millhand-*"))
    assert (unified / "cgroup.subtree_control").read_text() == "+memory"
    assert (base / "1" / "memory.max").read_text() == str(64 << 20)
    assert (base / "1" / "memory.swap.max").read_text() == "0"


def test_what_version_2_tells_at_the_end(unified, tmp_path):
    """The peak comes in kB; a kill for want of memory is told apart."""
    group = MemoryGroups.find(tmp_path, own="0::/box\n").make(1 << 20)
    place = next(unified.glob("millhand-*")) / "1"
    (place / "memory.peak").write_text("1048576\n")
    (place / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n")
    assert group is not None
    assert group.finish() == (1024, True)


def test_no_group_is_an_answer(tmp_path):
    """Where memory is not delegated and nothing can be written there are no groups, and nothing is left behind."""
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "cgroup.controllers").write_text("cpu\n")
    assert MemoryGroups.find(tmp_path, own=OWN).make(1 << 20) is None
    assert list(tmp_path.glob("box/millhand-*")) == []


def test_groups_of_dead_hosts_are_removed(unified, tmp_path):
    """Groups that a killed host has left go when the next one starts."""
    left = unified / "millhand-999999999-1"
    (left / "7").mkdir(parents=True)
    MemoryGroups.find(tmp_path, own="0::/box\n")
    assert not left.exists()


class Job(Watched):
    killed = False

    def kill(self) -> None:
        self.killed = True


async def looked_at(job: Job, seen: list[Process]) -> None:
    sampler = PeakSampler(lambda: seen)
    sampler._look_at([job])


def process(pid: int, parent: int, uid: int, kb: int) -> Process:
    return Process(pid=pid, parent=parent, uid=uid, rss_kb=kb, own_kb=kb)


async def test_a_job_with_its_own_user():
    """All processes of a job's user count together, whoever started them."""
    job = Job(uid=7, memory_limit=None)
    await looked_at(job, [process(1, 0, 7, 100), process(2, 1, 7, 50), process(3, 2, 8, 1000)])
    assert (job.sampled_peak_kb, job.killed) == (150, False)


async def test_a_job_without_a_user():
    """Elsewhere a job's processes are those below its own."""
    job = Job(uid=-1, memory_limit=None)
    job.pid, job.launcher_pid = os.getpid(), os.getppid()
    below = process(999_999_999, os.getpid(), 0, 50)
    await looked_at(job, [process(os.getpid(), os.getppid(), 0, 100), below, process(5, 1, 0, 1000)])
    assert job.sampled_peak_kb == 150


async def test_a_job_over_its_limit():
    """A job whose processes together use more than its limit is ended."""
    job = Job(uid=7, memory_limit=100 << 10)
    await looked_at(job, [process(1, 0, 7, 60), process(2, 1, 7, 60)])
    assert job.killed
    assert job.over_limit


def test_our_own_process_is_found():
    """/proc tells of this process: its parent, its user and its memory."""
    own = next(each for each in processes() if each.pid == os.getpid())
    assert (own.parent, own.uid) == (os.getppid(), os.geteuid())
    assert own.rss_kb >= own.own_kb > 0


async def test_looking_stops_with_the_last_job():
    """Nothing is looked at while no job runs."""
    looks = 0

    def look() -> list[Process]:
        nonlocal looks
        looks += 1
        return []

    sampler, job = PeakSampler(look), Job(uid=7, memory_limit=None)
    sampler.watch(job)
    sampler.forget(job)
    sampler._look()
    await asyncio.sleep(0)
    assert looks == 0
    assert sampler._timer is None


async def test_a_job_is_looked_at_once_it_lives_for_a_while(monkeypatch):
    """Short jobs cost no look at /proc; one that goes on is looked at."""
    monkeypatch.setattr("millhand.runtimes.memory._SAMPLE_S", 0.0)
    looked = asyncio.Event()

    def look() -> list[Process]:
        looked.set()
        return [process(1, 0, 7, 30)]

    sampler, job = PeakSampler(look), Job(uid=7, memory_limit=None)
    sampler.watch(job)
    await asyncio.wait_for(looked.wait(), 10)
    sampler.close()
    assert job.sampled_peak_kb == 30
