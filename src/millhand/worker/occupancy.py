"""How busy a worker is: its busy share over the last 15 seconds, 5 minutes, 30 minutes and since its start. Pure."""

from __future__ import annotations

from collections import deque

import msgspec

WINDOWS_S = (15.0, 300.0, 1800.0)
_FINE_S = 30.0  # younger samples are all kept
_COARSE_STEP_S = 15.0  # of older ones, one in this time: 120 per worker over the longest window


class Occupancy(msgspec.Struct, frozen=True, kw_only=True):
    """Busy shares, 0..1; a window's is None until the worker is as old as the window is long."""

    total: float | None
    last_15s: float | None
    last_5m: float | None
    last_30m: float | None


class OccupancyHistory:
    """Cumulative samples `(age, busy)` of one worker, both in seconds since its start."""

    def __init__(self) -> None:
        self._fine: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._coarse: deque[tuple[float, float]] = deque()

    def sample(self, *, age_s: float, busy_s: float) -> Occupancy:
        """Add a sample, not older than the last one, and return the shares up to it."""
        self._fine.append((age_s, busy_s))
        self._trim(age_s)
        shares = (self._share(window_s, age_s, busy_s) for window_s in WINDOWS_S)
        last_15s, last_5m, last_30m = shares
        return Occupancy(total=_ratio(busy_s, age_s), last_15s=last_15s, last_5m=last_5m, last_30m=last_30m)

    def _share(self, window_s: float, age_s: float, busy_s: float) -> float | None:
        """Return the share since the oldest sample inside the window."""
        if age_s < window_s:
            return None
        for then_s, busy_then_s in (*self._coarse, *self._fine):
            if then_s >= age_s - window_s:
                return _ratio(busy_s - busy_then_s, age_s - then_s)
        return None

    def _trim(self, age_s: float) -> None:
        while self._fine[0][0] < age_s - _FINE_S:
            old = self._fine.popleft()
            if not self._coarse or old[0] - self._coarse[-1][0] >= _COARSE_STEP_S:
                self._coarse.append(old)
        while self._coarse and self._coarse[0][0] < age_s - WINDOWS_S[-1]:
            self._coarse.popleft()


def _ratio(busy_s: float, elapsed_s: float) -> float | None:
    return min(max(busy_s / elapsed_s, 0.0), 1.0) if elapsed_s > 0 else None
