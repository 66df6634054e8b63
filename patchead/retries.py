"""How many requests to object storage this process has made again. Apart from the client: it takes half a second."""

from __future__ import annotations

import threading


class RetryCount:
    """Count the requests of this process that were made again."""

    def __init__(self) -> None:
        self._lock, self.total = threading.Lock(), 0

    def add(self, count: int) -> None:
        """Add some."""
        with self._lock:
            self.total += count


RETRIES = RetryCount()
