"""What several methods or pairs need, worked out once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent import futures
from typing import Any, TypeVar

Made = TypeVar("Made")


class Once:
    """Remembers what was made, by key; for any thread, of which one makes it and the others wait."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._lock = threading.Lock()
        self._made: dict[Hashable, tuple[Any, futures.Future[Any]]] = {}

    def __call__(self, key: Hashable, make: Callable[[], Made], *, kept: object = None) -> Made:
        """``make()``, or what it gave or raised the first time.

        Args:
          key: what it is made from. Large objects are named by their `id`.
          make: makes it.
          kept: objects that the key names so: kept with it, for another object could get the number.
        """
        with self._lock:
            is_new = key not in self._made
            if is_new:
                self._made[key] = (kept, futures.Future())
        made: futures.Future[Made] = self._made[key][1]
        if is_new:
            try:
                made.set_result(make())
            except BaseException as error:
                made.set_exception(error)
        return made.result()
