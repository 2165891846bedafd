"""`millhand up` and the commands beside it, as a user has them: real processes, nothing stood in for."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from millhand.core.errors import MillhandError
from tests.support.stack import Stack, environment, millhand, wait_until

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("up")]

HELLO = """
import sys

def main(name: str, times: int = 1):
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr)
    return {"hello": [name] * times}
"""
FAILING = "def main():\n    raise ValueError('not today')\n"
SLOW = "import time\n\ndef main(s: float):\n    print('began', flush=True)\n    time.sleep(s)\n    return 'slept'\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Give a running stack with a few scripts beside it."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "hello.py").write_text(HELLO)
    (folder / "failing.py").write_text(FAILING)
    (folder / "slow.py").write_text(SLOW)
    running = Stack(folder / "data")
    running.folder = folder
    yield running
    assert running.end() == 0


def test_it_says_when_it_is_ready(stack):
    """The ready line stands alone, first, and the first start shows how to log in."""
    assert re.fullmatch(r"ready: http://127\.0\.0\.1:\d+\n", stack.said[0])
    assert re.search(r"admin@millhand\.local, password \S{12,} ", stack.said[-1])


def test_the_token_is_private_and_works(stack):
    """The token file is for its owner only; its token is the superadmin's."""
    assert stat.S_IMODE((stack.data_dir / "admin.token").stat().st_mode) == 0o600
    who = stack.api().get("/users/whoami")
    assert (who["email"], who["super_admin"]) == ("admin@millhand.local", True)
    assert {workspace["id"] for workspace in stack.api().get("/workspaces/list")} == {"admins", "main"}


def test_run_a_file(stack):
    """The result alone is on stdout; the log, both streams of it, on stderr."""
    done = stack("run", stack.folder / "hello.py", "name=007", "times=2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"hello": ["007", "007"]}
    assert "to stdout\n" in done.stderr
    assert "to stderr\n" in done.stderr


def test_run_with_json_from_stdin(stack):
    """Arguments come from a pipe too."""
    done = stack("run", stack.folder / "hello.py", "--json", "-", stdin='{"name": "x"}')
    assert json.loads(done.stdout) == {"hello": ["x"]}


def test_a_failing_job_fails_the_command(stack):
    """Error and stack are on stderr, stdout is empty, the exit code is 1."""
    done = stack("run", stack.folder / "failing.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: not today" in done.stderr
    assert "line 2" in done.stderr


def test_a_job_over_its_time(stack):
    """--timeout ends the job and fails the command."""
    done = stack("run", stack.folder / "slow.py", "s=600", "--timeout", "1")
    assert done.returncode == 1
    assert "began" in done.stderr
    assert re.search("timeout|duration", done.stderr, re.IGNORECASE)


def test_push_and_run_by_path(stack):
    """A deployed script runs by its path, with arguments typed by its schema; a second push makes a new version."""
    pushed = stack("push", stack.folder / "hello.py", "--path", "u/admin/hello", "--json")
    assert pushed.returncode == 0, pushed.stderr
    first = json.loads(pushed.stdout)
    done = stack("run", "u/admin/hello", "name=1")
    assert json.loads(done.stdout) == {"hello": ["1"]}, done.stderr
    changed = stack.folder / "changed.py"
    changed.write_text(HELLO.replace("hello", "goodbye"))
    again = stack("push", changed, "--path", "u/admin/hello", "--json")
    assert json.loads(again.stdout)["hash"] != first["hash"]
    assert json.loads(stack("run", "u/admin/hello", "name=1").stdout) == {"goodbye": ["1"]}


def test_a_path_without_a_script(stack):
    """An unknown path is bad usage, said in a line."""
    done = stack("run", "u/admin/nothing_here")
    assert done.returncode == 2
    assert "no script is deployed at u/admin/nothing_here" in done.stderr


def test_a_job_nobody_serves_is_explained_and_cancelled(stack):
    """A waiting job shows why, on `jobs` and `why`; cancel ends it at once."""
    body = {"content": HELLO, "language": "python3", "args": {"name": "x"}, "tag": "nobody-serves-this"}
    job_id = stack.api().post("jobs/run/preview", body)
    listed = {job["id"]: job for job in json.loads(stack("jobs", "--json").stdout)}
    assert "no live worker listens to the tag" in listed[job_id]["why"]["text"]
    assert "no live worker listens to the tag" in stack("why", job_id).stdout
    queues = {each["tag"]: each for each in json.loads(stack("queues", "--json").stdout)}
    assert queues["nobody-serves-this"]["workers"] == 0
    assert queues["python3"]["workers"] >= 2  # one that another test killed counts until its lease ends
    assert stack("cancel", job_id).returncode == 0
    assert stack.api().get(f"jobs_u/completed/get/{job_id}")["canceled"]


def test_run_says_why_it_waits(stack):
    """A run that waits says why on stderr; Ctrl-C cancels its job."""
    waiting = subprocess.Popen(
        [sys.executable, "-m", "millhand", "run", stack.folder / "hello.py", "name=x", "--tag", "nobody"],
        env=environment(stack.data_dir),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "no live worker listens to the tag 'nobody'" in waiting.stderr.readline()
    os.kill(waiting.pid, signal.SIGINT)
    rest = waiting.stderr.read()
    assert waiting.wait(30) == 130
    assert "Traceback" not in rest
    waiting.stderr.close()
    assert not [job for job in stack.api().get("jobs/queue/list") if job["tag"] == "nobody"]


def test_logs(stack):
    """`logs` shows what a job wrote, `-f` until it ends."""
    job_id = stack.api().post("jobs/run/preview", {"content": SLOW, "language": "python3", "args": {"s": 0.3}})
    followed = stack("logs", job_id, "-f")
    assert "began\n" in followed.stdout
    assert stack("logs", job_id).stdout == followed.stdout


def test_workers_are_listed(stack):
    """The workers show, with what isolates their jobs."""
    found = json.loads(stack("workers", "--json").stdout)
    assert len(found) >= 2
    assert all(worker["worker"].startswith("wk-default-") and worker["job_isolation"] for worker in found)


@pytest.mark.parametrize("listing", ["jobs", "workers", "queues"])
def test_tables_are_plain_in_a_pipe(stack, listing):
    """Without a terminal there are no frames, colours or cut lines."""
    stack.api().post("jobs/run/preview", {"content": HELLO, "language": "python3", "args": {"name": "x"}})
    done = stack(listing)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 1
    assert not re.search("[─│\x1b]", done.stdout)


def test_a_second_up_is_told_who_is_first(stack):
    """The same directory is held once."""
    done = millhand(stack.data_dir, "up", "--port", "0")
    assert done.returncode == 1
    assert f"process {stack.process.pid} since" in done.stderr
    assert stack.url in done.stderr


def test_a_busy_port(stack, tmp_path):
    """A port that is taken is named, with the option that helps."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = millhand(tmp_path / "other", "up", "--port", taken.getsockname()[1])
    assert done.returncode == 1
    assert "choose another port with --port" in done.stderr


@pytest.mark.parametrize("part", ["server", "worker"])
def test_a_part_that_dies_is_started_again(stack, part):
    """Kill -9 of a part: it comes back at the same address, and jobs run."""
    before = stack.processes()[part]
    before.kill()

    def is_back():
        now = stack.processes().get(part)
        return now is not None and now.pid != before.pid

    wait_until(is_back)
    done = stack("run", stack.folder / "hello.py", "name=x")
    assert done.returncode == 0, done.stderr


def test_bad_tokens(stack):
    """A wrong token is refused in a line."""
    done = millhand(stack.data_dir, "jobs", MILLHAND_URL=stack.url, MILLHAND_TOKEN="wrong")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_it_drains(tmp_path):
    """TERM lets a running job finish; the record is there at the next start, which shows no password again."""
    first = Stack(tmp_path / "data")
    job_id = first.api().post("jobs/run/preview", {"content": SLOW, "language": "python3", "args": {"s": 1.5}})
    wait_until(lambda: first.api().get(f"jobs_u/get/{job_id}").get("running"))
    assert first.end() == 0
    second = Stack(tmp_path / "data")
    try:
        job = second.api().get(f"jobs_u/completed/get/{job_id}")
        assert (job["success"], job["result"]) == (True, "slept")
        assert "password as shown at the first start" in second.said[-1]
        assert second.token == first.token
    finally:
        second.end()


def test_a_second_signal_ends_at_once(tmp_path):
    """After a second TERM the job goes back to the queue, and the next start runs it."""
    first = Stack(tmp_path / "data")
    body = {"content": SLOW, "language": "python3", "args": {"s": 3}}
    job_id = first.api().post("jobs/run/preview", body)
    wait_until(lambda: first.api().get(f"jobs_u/get/{job_id}").get("running"))
    first.process.send_signal(signal.SIGTERM)
    worker = first.processes()["worker"]
    wait_until(lambda: "worker.draining" in first.log.read_text())
    first.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    first.process.stdout.close()
    assert first.process.wait(30) == 0
    second = Stack(tmp_path / "data")
    try:
        wait_until(lambda: _completed(second, job_id))
        assert _completed(second, job_id)["success"]
    finally:
        second.end()


def test_it_is_picked_up_after_kill_9(tmp_path):
    """After kill -9 of everything the next `up` goes on: the record, a waiting job, and the token are there."""
    first = Stack(tmp_path / "data")
    api = first.api()
    done_id = api.post("jobs/run/preview", {"content": HELLO, "language": "python3", "args": {"name": "x"}})
    wait_until(lambda: _completed(first, done_id))
    later_id = api.post(
        "jobs/run/preview", {"content": HELLO, "language": "python3", "args": {"name": "y"}, "tag": "none"}
    )
    first.kill_all()
    second = Stack(tmp_path / "data")
    try:
        assert second.api().get(f"jobs_u/completed/get/{done_id}")["result"] == {"hello": ["x"]}
        assert not second.api().get(f"jobs_u/get/{later_id}")["running"]
        assert second.token == first.token
        assert json.loads(second("run", "--json", '{"name": "z"}', _script(tmp_path)).stdout) == {"hello": ["z"]}
    finally:
        second.end()


def test_a_killed_up_takes_its_parts_with_it(tmp_path):
    """Kill -9 of `up` alone: its parts end by themselves."""
    running = Stack(tmp_path / "data")
    parts = [process for name, process in running.processes().items() if name != "up"]
    assert len(parts) == 3
    running.process.kill()
    running.process.wait()
    running.process.stdout.close()
    wait_until(lambda: not any(part.is_running() and part.status() != psutil.STATUS_ZOMBIE for part in parts))


def test_run_starts_a_stack_for_itself(tmp_path):
    """Without a running `up`, `run` starts one, and leaves none behind."""
    done = millhand(tmp_path / "data", "run", _script(tmp_path), "name=x")
    assert json.loads(done.stdout) == {"hello": ["x"]}, done.stderr
    assert "just for this run" in done.stderr
    listed = millhand(tmp_path / "data", "jobs")
    assert "millhand is not up" in listed.stderr
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]


def _script(folder):
    path = folder / "hello.py"
    path.write_text(HELLO)
    return path


def _completed(stack, job_id):
    try:
        return stack.api().get(f"jobs_u/completed/get/{job_id}")
    except MillhandError:
        return None
