"""A record that a session has handed to a store which answers later."""

from __future__ import annotations

from collections.abc import Callable

from burr_otel.store.port import StoreAnswer


class Handed:
    """The newest record of a step, handed to a store which answers later.

    `placed` is told where it lies, and `again` hands it over whole if it was displaced. An end has
    `before`, the step's begin, if that was handed over, too: nobody may have settled it yet.
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
        """Tell where a begin lies, once its end is answered; gives why it is not kept, if so."""
        placed, self.placed = self.placed, None
        # No answer yet: a finaliser ends the step while its own thread is inside of a statement.
        if placed is None or not self.answer.is_there:
            return None
        error = self.answer.error()
        if error is None:
            placed(*self.answer.place())
        return error
