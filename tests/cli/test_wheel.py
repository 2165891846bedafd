"""`pip install millhand` gives the same as a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import environment

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("wheel"), pytest.mark.timeout(300)]


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment(cwd / "data"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_wheel_runs_a_job(tmp_path):
    """A wheel of this tree, alone in a fresh environment, runs a Python job on a stack of its own."""
    run(UV, "build", "--wheel", "--quiet", "--out-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("millhand-*.whl")
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv", cwd=tmp_path)
    run(UV, "pip", "install", "--quiet", "--python", tmp_path / "venv/bin/python", wheel, cwd=tmp_path)
    (tmp_path / "hello.py").write_text("def main(name: str):\n    print('here')\n    return f'Hello, {name}'\n")
    done = run(tmp_path / "venv/bin/millhand", "run", "hello.py", "name=wheel", cwd=tmp_path)
    assert json.loads(done.stdout) == "Hello, wheel"
    assert "here\n" in done.stderr
