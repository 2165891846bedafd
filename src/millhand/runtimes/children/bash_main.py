"""Runs a Bash script, as a job of the Python child.

Returns how Bash ended and what it left: {"code", "json", "text"}; the host makes the result of it, since that is the last
line of the output, which the host sees anyway, when neither file was written.
"""

import _signal
import os


def main(script, arguments, bash):
    with open("main.sh", "w", encoding="utf-8") as file:
        file.write(script)
    pid = os.posix_spawn(
        bash,
        [
            "bash",
            "-e",
            "./main.sh",
            *arguments,
        ],  # -e and not a line `set -e`: error messages keep the script's line numbers
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_CLOSE, 3),
            (os.POSIX_SPAWN_CLOSE, 4),
        ],  # the channel of this child is not the script's
        setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGTERM, _signal.SIGINT],  # Python ignores the first two
    )
    _signal.signal(_signal.SIGTERM, lambda *_: _forward())
    code = os.waitstatus_to_exitcode(_wait(pid))
    code = code if code >= 0 else 128 - code  # as shells tell a signal
    return {"code": code, "json": _content("result.json"), "text": _content("result.out")}


def _forward():
    """As process 1 of a namespace, pass TERM on to all in it; elsewhere they had it too."""
    if os.getpid() == 1:
        try:
            os.kill(-1, _signal.SIGTERM)
        except ProcessLookupError:
            pass


def _wait(pid):
    """Wait for one process; as process 1, bury the orphans too."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return status


def _content(name):
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read().strip() or None
    except OSError:  # not written, or not to be read
        return None
