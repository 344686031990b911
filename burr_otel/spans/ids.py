"""Trace and span ids that a program which seeds the global `random` does not repeat."""

from __future__ import annotations

import os
import random
from typing import Any

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator


class SystemSeededIds(IdGenerator):
    """Random ids, seeded by the operating system and again in each forked child."""

    def __init__(self) -> None:
        self.seed()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.seed)

    def seed(self) -> None:
        """Seed anew."""
        self._random_bits = random.Random().getrandbits  # noqa: S311  # ids are no secrets

    def generate_span_id(self) -> int:
        """A valid span id."""
        return self._random_bits(64) or self.generate_span_id()

    def generate_trace_id(self) -> int:
        """A valid trace id."""
        return self._random_bits(128) or self.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether samplers may rely on the low 56 bits."""
        return True


ids = SystemSeededIds()


def id_generator(provider: Any) -> IdGenerator:
    """The provider's own generator, ours in place of the SDK's, which draws on `random`."""
    own = getattr(provider, "id_generator", None)
    return ids if own is None or type(own) is RandomIdGenerator else own
