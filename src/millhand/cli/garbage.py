"""How often a long-lived process of ours looks for garbage."""

from __future__ import annotations

import gc

_YOUNG = 20_000  # new objects between two looks at the youngest


def collect_rarely() -> None:
    """Leave out what was made at the start, and look less often for cycles among the rest.

    A host at 500 jobs/s spent a sixth of its time in collections at the default of 700 objects; its own records make no
    cycles, so there is little to find.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 50, 100)
