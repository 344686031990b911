"""Waiting on an event loop for a store's answers, which any thread may give."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator

from burr_otel.live import answers
from burr_otel.store import Session, process
from burr_otel.store.objects.writer import BatchWriter
from burr_otel.store.port import END, StoreAnswer
from burr_otel.store.session import Handed


class Waits:
    """A session whose steps each wait for one answer."""

    def __init__(self, count: int) -> None:
        self.given = [StoreAnswer() for _ in range(count)]

    def answers(self, sequence_id: int) -> Iterator[StoreAnswer]:
        yield self.given[sequence_id]


async def test_answers_of_two_threads_at_once_wake_the_loop(monkeypatch):
    """One thread gives its answer while another one is about to call the loop."""
    session, others = Waits(2), []

    class Interleaved(deque):
        def append(self, event: object) -> None:
            super().append(event)
            if not others:
                others.append(threading.Thread(target=session.given[1].give))
                others[0].start()
                others[0].join()

    monkeypatch.setattr(answers, "deque", Interleaved)
    waiting = [asyncio.ensure_future(answers._answers(session, number)) for number in range(2)]
    await asyncio.sleep(0)
    session.given[0].give()
    done, _ = await asyncio.wait(waiting, timeout=10)
    assert done == set(waiting)
    assert others


def test_two_who_ask_for_an_answer_both_go_on():
    """A tracker is closed by another thread while an application waits for its step."""

    class Log:
        project, app_id = "p", "a"

    session = Session(Log(), "s", "flush", claim=None, exclusive=False, delta=False)
    answer, placed = StoreAnswer(), []
    session.handed[0] = Handed(answer, lambda *place: placed.append(place))
    one, two = session.answers(0), session.answers(0)
    assert next(one) is next(two) is answer
    answer.give((1, 2))
    assert (next(one, None), next(two, None)) == (None, None)
    assert placed == [(1, 2)]


class Panic(BaseException):
    """What PyO3 raises of a library in Rust that panics; it is no `Exception`."""


class Panicking:
    """A bucket whose library panics."""

    def page(self, folder: str) -> object:
        raise Panic


def test_a_library_that_panics_answers_with_that():
    """Whoever waits for the record would wait for ever."""
    writer = BatchWriter(Panicking(), "proj/a", "proj/a")
    answer, there = writer.put(b"{}", (END, 0), soon=True, durability="flush"), threading.Event()
    answer.then(there.set)
    assert there.wait(60)
    assert type(answer.error()) is Panic


def test_a_task_that_panics_does_not_end_the_others(monkeypatch, caplog):
    """Claims and heartbeats of all runs depend on the one thread that does them."""
    monkeypatch.setattr(process, "_EVERY_S", 0.0)
    background, done = process.Background(), threading.Event()

    def panic() -> bool:
        raise Panic

    background.add(panic)
    background.add(lambda: done.set() or False)
    assert done.wait(60)
    assert "a task for a store failed" in caplog.text
