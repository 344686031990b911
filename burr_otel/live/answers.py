"""Waiting, in an asynchronous application, for what its hooks have handed to a shared store.

Burr's synchronous hooks run on the event loop, so there they hand a step's records over and do not
wait. An adapter with asynchronous hooks of the same names, which Burr awaits after them, waits. It
is added to asynchronous applications only: of any other, Burr would warn in each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from burr.lifecycle import PostRunStepHookAsync, PreRunStepHookAsync

from burr_otel.errors import SnapshotError
from burr_otel.live.registry import Owner, registry

if TYPE_CHECKING:
    from burr_otel.store import Session


class _Waker:
    """What is to be set in an event loop, and whether the loop has been called to do so."""

    def __init__(self) -> None:
        self.events: deque[asyncio.Event] = deque()
        self.is_called = False

    def set_all(self) -> None:
        """In the loop."""
        self.is_called = False  # first: whoever adds an event from now on calls it again
        while self.events:
            self.events.popleft().set()


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waker]
_wakers = weakref.WeakKeyDictionary()


class AnswersHook(PreRunStepHookAsync, PostRunStepHookAsync):
    """Beside a tracker: waits for the store's answers to a step's begin and end."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    @classmethod
    def made_for(cls, tracker: Any, app_id: str) -> Iterator[AnswersHook]:
        """One for a tracker whose store answers late; none for another."""
        if not tracker._store.engine.answers_late:  # noqa: SLF001 - our own class
            return
        for run in registry.runs(app_id):
            if run.owner is tracker._owner:  # noqa: SLF001
                run.answers_later = True
                yield cls(run.owner)
                return

    async def pre_run_step(self, *, sequence_id: int, **told: Any) -> None:
        """The step takes place once its begin is kept."""
        run = registry.resolve(self._owner, told)
        if run is None or run.session is None:
            return
        try:
            await _answers(run.session, sequence_id)
        except SnapshotError as error:
            run.refuse_step(sequence_id, error)
        except asyncio.CancelledError:
            run.session.leave(sequence_id)
            raise
        handed = run.session.handed.get(sequence_id)
        if handed is not None:
            handed.is_awaited = True

    async def post_run_step(self, *, sequence_id: int, exception: Any, **told: Any) -> None:
        """The application goes on once the step's state is kept."""
        run = registry.resolve(self._owner, told)
        if run is None or run.session is None:
            return
        try:
            await _answers(run.session, sequence_id)
        except SnapshotError as error:
            run.tell_lost(error, exception)
        finally:
            run.session.leave(sequence_id)


async def _answers(session: Session, sequence_id: int) -> None:
    for answer in session.answers(sequence_id):
        if not answer.is_there:
            loop, there = asyncio.get_running_loop(), asyncio.Event()
            answer.then(functools.partial(_tell, loop, there))
            await there.wait()


def _tell(loop: asyncio.AbstractEventLoop, there: asyncio.Event) -> None:
    """Set an event of a loop, which is woken once for all that a statement has answered."""
    waker = _wakers.get(loop) or _wakers.setdefault(loop, _Waker())
    waker.events.append(there)
    if not waker.is_called:
        waker.is_called = True
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(waker.set_all)
