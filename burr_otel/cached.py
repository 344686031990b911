"""Properties that are worked out once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class CachedProperty(functools.cached_property[_T]):
    """As its base without the one lock for all objects, which Python has before 3.12.

    A child that is forked while another thread holds it would wait for it for ever.
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        super().__init__(make)
        self.lock = contextlib.nullcontext()
