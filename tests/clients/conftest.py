"""A running stack with scripts deployed, for the clients that others have written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.runs import cache_dir
from tests.support.stack import Stack

ADD = "def main(a: int, b: int = 2):\n    print('adding', flush=True)\n    return {'sum': a + b}\n"
FAILING = "def main():\n    raise ValueError('not today')\n"
SLEEP = "import time\n\ndef main(s: float = 60):\n    time.sleep(s)\n    return 'slept'\n"


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a running stack with scripts deployed."""
    running = Stack(tmp_path_factory.mktemp("clients") / "data", MILLHAND_CACHE_DIR=str(cache_dir()))
    api = running.api()
    for name, content in (("add", ADD), ("failing", FAILING), ("sleep", SLEEP)):
        script = {"path": f"u/admin/{name}", "content": content, "language": "python3", "lock": "", "summary": ""}
        api.post("scripts/create", script)
    yield running
    assert running.end() == 0
