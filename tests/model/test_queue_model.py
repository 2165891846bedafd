"""The real queue against a small model of it, under any order of what may happen to it."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from millhand.core.ids import new_id
from millhand.core.job import MAX_ATTEMPTS_LOST, JobStatus
from millhand.core.worker import HostPing
from millhand.store import cancel, completion, queue, workers
from millhand.store.pool import QUEUE_PLANS, Database
from millhand.store.rescue import rescue
from tests.store.conftest import Host, new_host, new_job, report

LEASE_S = 60
TAGS = ("t", "u")
STATES = "select id, state::text as state, attempt, n_lost from job_queue"
RECORDS = "select id, status::text as status, attempt, worker, completed_at, result, canceled_by from job_completed"


class QueueMachine(RuleBasedStateMachine):
    """Hosts push, claim, ping, report, crash and come back while a clock jumps; the model says who holds what.

    Invariants: every accepted job is in the queue or in the record, and in one of them; a record never changes; a job
    has one holder at most, and each claim a higher attempt; a report is taken from the holder and from nobody else.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        super().__init__()
        self.loop, self.database = loop, database
        self.now = self.latest = datetime(2026, 1, 1, tzinfo=UTC)
        # Ids in the order of pushes, always: those of one moment would sort by chance, and each run of an example otherwise.
        self.ticks_ms = itertools.count(time.time_ns() // 1_000_000)
        self.accepted: set = set()
        self.records: dict = {}
        self.attempts: dict = {}  # highest attempt seen of each job
        self.held: dict = {}  # job → (host, claimed job) that holds it
        self.past: list = []  # every (host, claimed job) there was: hosts come back and report late
        self.leases: dict = {}  # host → when its lease ends; absent once it was struck off
        self.lost: dict = {}  # how often each job was rescued
        for table in ("job", "job_queue", "job_completed", "job_log", "worker_host"):
            self.run(database.execute(f"delete from {table}"))
        self.hosts = [self.register() for _ in range(3)]

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def register(self) -> Host:
        host = Host(self.database, new_host(lease_s=LEASE_S), n_workers=4)
        self.run(host.register(now=self.now))
        self.leases[host] = self.now + timedelta(seconds=LEASE_S)
        return host

    def lives(self, host: Host) -> bool:
        return host in self.leases and self.leases[host] > self.now

    @rule(
        n=st.integers(1, 4),
        delay_s=st.sampled_from([None, -5, 0, 30, 300]),
        tag=st.sampled_from(TAGS),
        priority=st.sampled_from([0, 0, 5]),
    )
    def push(self, n, delay_s, tag, priority):
        """Jobs come, due now or later."""
        due = None if delay_s is None else self.now + timedelta(seconds=delay_s)
        jobs = [
            new_job(id=new_id(next(self.ticks_ms)), tag=tag, priority=priority, scheduled_for=due) for _ in range(n)
        ]
        tags = self.run(queue.push(self.database, jobs, now=self.now))
        assert tags == ([tag] if due is None or due <= self.now else [])
        self.accepted.update(job.id for job in jobs)

    @rule(host=st.integers(0, 2), n=st.integers(1, 4), tags=st.sampled_from([TAGS, ("t",), ("u",)]))
    def claim(self, host, n, tags):
        """A host's free workers take jobs; only if it holds its lease, only jobs nobody holds."""
        host = self.hosts[host]
        claimed = self.run(host.claim(n, tags=tags, now=self.now))
        assert len(claimed) <= n
        assert not claimed or self.lives(host)
        for job in claimed:
            assert job.id in self.accepted
            assert job.id not in self.records
            assert job.id not in self.held
            assert job.attempt > self.attempts.get(job.id, 0)
            assert job.scheduled_for <= self.latest  # what was due once stays due when the clock is put back
            assert job.tag in tags
            self.attempts[job.id] = job.attempt
            self.held[job.id] = (host, job)
            self.past.append((host, job))

    @rule(host=st.integers(0, 2))
    def ping(self, host):
        """A heartbeat renews the lease, unless the host was struck off, and names exactly the jobs that are lost to it."""
        host = self.hosts[host]
        believed = tuple({job.id for holder, job in self.past if holder is host})
        beat = HostPing(workers=(), memory_usage=0, host_memory_usage=0, draining=False, held=believed)
        orders = self.run(workers.ping(self.database, host.info, beat, now=self.now))
        assert orders.lease_lost == (host not in self.leases)
        assert set(orders.lost) == {job for job in believed if job not in self.held or self.held[job][0] is not host}
        if not orders.lease_lost:
            self.leases[host] = self.now + timedelta(seconds=LEASE_S)

    @precondition(lambda self: self.past)
    @rule(data=st.data(), status=st.sampled_from(list(JobStatus)))
    def complete(self, data, status):
        """Reports arrive, of held attempts, of lost ones, of recorded ones, mixed: only the holders' are taken."""
        (host, _) = data.draw(st.sampled_from(self.past))
        mine = [job for holder, job in self.past if holder is host]
        jobs = data.draw(st.lists(st.sampled_from(mine), min_size=1, max_size=4, unique_by=lambda job: job.id))
        reports = [report(job, status=status) for job in jobs]
        done = self.run(completion.complete(self.database, reports, host.info.incarnation, now=self.now))
        for job in jobs:
            holds = self.held.get(job.id) == (host, job)
            recorded = job.id in self.records and self.records[job.id]["attempt"] == job.attempt
            assert (job.id in done.held) == (holds or recorded)
            if holds:
                del self.held[job.id]

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def release(self, data):
        """A host gives a job back; only the holder can."""
        host, job = data.draw(st.sampled_from(self.past))
        released = self.run(queue.release(self.database, [(job.id, job.attempt)], host.info.incarnation))
        assert bool(released) == (self.held.get(job.id) == (host, job))
        if released:
            del self.held[job.id]

    @precondition(lambda self: self.accepted)
    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data, force):
        """Somebody cancels a job: a waiting one ends, a running one is told, an ended one stays as it is."""
        job_id = data.draw(st.sampled_from(sorted(self.accepted)))
        running = job_id in self.held
        done = self.run(
            cancel.cancel(self.database, [job_id], workspace_id="main", by="bob", force=force, now=self.now)
        )
        ends = job_id not in self.records and (force or not running)
        assert done.ended == ((job_id,) if ends else ())
        assert done.told == ((job_id,) if running else ())
        if ends:
            self.held.pop(job_id, None)

    @rule()
    def promote(self):
        """Jobs whose time has come are queued."""
        self.run(queue.promote_due(self.database, now=self.now))

    @rule()
    def rescue(self):
        """Jobs of hosts without a lease are taken from them, and no others; none more often than is allowed."""
        done = self.run(rescue(self.database, now=self.now))
        lost = {job_id for job_id, (host, _) in self.held.items() if not self.lives_inclusive(host)}
        assert {*done.requeued, *done.ended} == lost
        for job_id in done.requeued:
            self.lost[job_id] = self.lost.get(job_id, 0) + 1
            assert self.lost[job_id] <= MAX_ATTEMPTS_LOST
        for job_id in lost:
            del self.held[job_id]
        self.leases = {host: ends for host, ends in self.leases.items() if ends >= self.now}

    def lives_inclusive(self, host: Host) -> bool:
        """A lease that ends this very moment is not taken away yet, though nothing more is given to its host."""
        return host in self.leases and self.leases[host] >= self.now

    @rule(host=st.integers(0, 2))
    def crash(self, host):
        """A host dies and another one starts in its place; the dead one's reports may still be on their way."""
        self.hosts[host] = self.register()

    @rule(seconds=st.sampled_from([1, 20, 59, 60, 61, 400, -30]))
    def tick(self, seconds):
        """The clock jumps, now and then backwards."""
        self.now += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.now)

    @invariant()
    def every_job_is_in_one_place(self):
        """Nothing is lost, nothing doubled; held jobs are running; a record is final."""
        queued = {row["id"]: row for row in self.run(self.database.fetch(STATES))}
        records = {row["id"]: dict(row) for row in self.run(self.database.fetch(RECORDS))}
        assert queued.keys() | records.keys() == self.accepted
        assert queued.keys().isdisjoint(records)
        assert {job_id for job_id, row in queued.items() if row["state"] == "running"} == self.held.keys()
        assert {job_id: records[job_id] for job_id in self.records} == self.records
        self.records = records


def test_the_queue_keeps_its_promises(database_url):
    """Whatever happens in whatever order, nothing is lost, no job has two holders, what has ended has ended."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        database = Database(database_url, application_name="model", max_size=1, settings=QUEUE_PLANS)
        runner.run(database.open())
        run_state_machine_as_test(
            lambda: QueueMachine(loop, database),
            settings=settings(
                max_examples=60,
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        runner.run(database.close())
