"""What is known of objects that may not be hashed or compared: Logfire's providers are neither."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class ByIdentity(Generic[V]):
    """A value for each object, made when it is asked for first, and held while the object lives."""

    def __init__(self, make: Callable[[Any], V]) -> None:
        self._make = make
        self._held: dict[int, tuple[weakref.ref[Any], V]] = {}
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def __getitem__(self, key: object) -> V:
        number = id(key)
        held = self._held.get(number)
        if held is None:
            with self._lock:
                held = self._held.get(number)
                if held is None:
                    ref = weakref.ref(key, lambda _: self._held.pop(number, None))
                    held = self._held[number] = ref, self._make(key)
        return held[1]

    def __iter__(self) -> Iterator[tuple[Any, V]]:
        """The objects that still live, each with its value."""
        for ref, value in tuple(self._held.values()):
            key = ref()
            if key is not None:
                yield key, value
