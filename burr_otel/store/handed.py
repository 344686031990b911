"""Records that were handed to a store which answers later, so that no event loop waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

from burr_otel.errors import SnapshotError, StoreError
from burr_otel.store.chain import Chain
from burr_otel.store.port import DisplacedError

Answer = Future[tuple[int, int]]


class Handed:
    """The newest record of a step.

    `placed` is told where it lies, and `again` hands it over whole if it was displaced.
    """

    __slots__ = ("again", "answer", "is_awaited", "placed")

    def __init__(self, answer: Answer, placed: Callable[[int, int], None]) -> None:
        self.answer = answer
        self.placed: Callable[[int, int], None] | None = placed
        self.again: Callable[[], None] | None = None
        self.is_awaited = False  # somebody will ask for the answer to the step's end


class HandedOver(dict[int, Handed]):
    """What a session has handed over, by step, until somebody has asked for the answers."""

    __slots__ = ("_chain", "_run")

    def __init__(self, run: str, chain: Chain | None) -> None:
        super().__init__()
        self._run, self._chain = run, chain

    def answers(self, sequence_id: int) -> Iterator[Answer]:
        """What to wait for, one after the other, until a step's newest record is kept.

        Raises:
            SnapshotError: It is not.
        """
        while (handed := self.get(sequence_id)) is not None and handed.placed is not None:
            yield handed.answer
            error = handed.answer.exception()
            if error is None:
                handed.placed(*handed.answer.result())
                handed.placed = None
            elif isinstance(error, DisplacedError) and handed.again is not None:
                handed.again()
            else:
                handed.placed = None
                if self._chain is not None:
                    self._chain.forget()
                if not isinstance(error, OSError | StoreError):
                    raise error
                raise SnapshotError(self._run, error, sequence_id=sequence_id) from error
