"""How fast a stage goes, and how long it still takes. Pure: counts and times in, rate and seconds out."""

from __future__ import annotations

from collections import deque

WINDOW_S = 300.0
_AT_ONCE_S = 2.0


class Pace:
    """Hold what a stage has done and when; the rate is that of the last five minutes.

    What is dealt with in the first two seconds, as images that an earlier night has embedded are, is done but says
    nothing of the rate, once there is more.
    """

    def __init__(self, total: int | None, now: float) -> None:
        self.total, self.done, self._begun, self._at_once = total, 0, now, 0
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def add(self, count: int, now: float) -> None:
        """Note that ``count`` more items are done at ``now``, in seconds of any clock."""
        self.done += count
        if now - self._begun <= _AT_ONCE_S:
            self._at_once = self.done
            self._seen = deque([(now, self.done)])
            return
        self._seen.append((now, self.done))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_S:
            self._seen.popleft()

    def rate(self, now: float) -> float:
        """Give the items per second."""
        since, before = self._seen[0]
        if self.done == self._at_once:  # all of it came at once, or nothing has come
            since, before = self._begun, 0
        return (self.done - before) / max(now - since, 1e-9)

    def seconds_left(self, now: float) -> float | None:
        """Estimate how long the rest takes; None while nothing is known of it."""
        rate = self.rate(now)
        return None if self.total is None or not rate else max(self.total - self.done, 0) / rate


def duration(seconds: float) -> str:
    """Write seconds as a person says them.

    >>> duration(7), duration(113), duration(5_400)
    ('7 s', '1 min 53 s', '1 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def line(stage: str, done: int, total: int | None, rate: float, left: float | None) -> str:
    """Write where a stage is: ``"embed    320 of 4000 images, 32.5 images/s, 1 min 53 s left"``."""
    of = "" if total is None else f" of {total}"
    still = "" if left is None else f", {duration(left)} left"
    return f"{stage:<8} {done}{of} images, {rate:.1f} images/s{still}"
