"""A record that a session has handed to a store which answers later."""

from __future__ import annotations

from collections.abc import Callable

from burr_otel.store.port import StoreAnswer


class Handed:
    """The newest record of a step, handed to a store which answers later.

    `placed` is told where it lies, and `again` hands it over whole if it was displaced. `before`
    is the step's begin, which is kept when its end is, if nobody has asked for that yet.
    """

    __slots__ = ("again", "answer", "before", "is_awaited", "placed")

    def __init__(
        self,
        answer: StoreAnswer,
        placed: Callable[[int, int], None],
        *,
        before: Handed | None = None,
        is_awaited: bool = False,
    ) -> None:
        self.answer, self.before = answer, before
        self.placed: Callable[[int, int], None] | None = placed
        self.again: Callable[[], None] | None = None
        self.is_awaited = is_awaited  # somebody will ask for the answer to the step's end

    def settle(self) -> BaseException | None:
        """Once what follows is kept: say where it lies, or why it is not kept; only once."""
        placed, self.placed = self.placed, None
        if placed is None or not self.answer.is_there:  # a finaliser, inside of a statement
            return None
        error = self.answer.error()
        if error is None:
            placed(*self.answer.place())
        return error
