"""What a signal handler raises (Ctrl-C, a time limit) while its thread writes into PostgreSQL.

The thread may be writing for others, too, and a signal comes between any two calls.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import pytest
from test_postgres_engine import append, bodies, line, new_run

from burr_otel.errors import StoreError
from burr_otel.store.port import END, StoreAnswer
from burr_otel.store.postgres.database import Database
from burr_otel.store.postgres.writer import Writer


class Interrupts:
    """Calls something, and then the signal handler, which raises, the first time."""

    def __init__(self, call: Callable[..., object], error: type[BaseException]) -> None:
        self.call, self.error, self.came = call, error, False

    def __call__(self, *arguments: object, **more: object) -> object:
        found = self.call(*arguments, **more)
        if not self.came and threading.current_thread() is threading.main_thread():
            self.came = True
            raise self.error("the time is up")
        return found


@pytest.fixture(params=[KeyboardInterrupt, TimeoutError, ValueError])
def error(request: pytest.FixtureRequest) -> type[BaseException]:
    """What the handler raises."""
    return request.param


@pytest.mark.parametrize("after", ["send", "answer"])
def test_others_whose_records_go_with_it_lose_none(database, monkeypatch, error, after):
    """Their records are kept, each once, and so is the one that was being written."""
    mine, others = new_run(database, "mine"), new_run(database, "others")
    append(mine, 0)
    append(others, 0)
    answer = others.put(line(1), (END, 1), soon=False, durability="flush")
    interrupts = Interrupts(getattr(mine._writer.database, after), error)
    monkeypatch.setattr(mine._writer.database, after, interrupts)
    with pytest.raises(error, match="the time is up"):
        append(mine, 1)
    assert answer.error() is None
    append(mine, 2)
    assert bodies(mine) == [line(0), line(1), line(2)]
    assert bodies(others) == [line(0), line(1)]


def test_no_answer_is_lost_of_those_that_are_given(database, monkeypatch, error):
    """The signal comes after the first of three records was answered."""
    run = new_run(database)
    append(run, 0)
    give = Interrupts(StoreAnswer.give, error)
    answers = [run.put(line(n), (END, n), soon=False, durability="flush") for n in (1, 2)]
    monkeypatch.setattr(StoreAnswer, "give", functools.partialmethod(give))
    with pytest.raises(error, match="the time is up"):
        append(run, 3)
    append(run, 4)
    assert [answer.is_there and answer.error() for answer in answers] == [None, None]
    assert bodies(run) == [line(number) for number in range(5)]


def test_no_answer_is_lost_where_the_server_refuses_one_of_several(database, monkeypatch, error):
    """The signal comes while they are written one by one to find out which."""
    mine, others = new_run(database, "mine"), new_run(database, "others")
    append(mine, 0)
    append(others, 0)
    kinds = 2**40, END  # of which the first is none
    answers = [others.put(line(n), (n, n), soon=False, durability="flush") for n in kinds]
    interrupts = Interrupts(Writer._refuse, error)
    monkeypatch.setattr(Writer, "_refuse", functools.partialmethod(interrupts))
    with pytest.raises(error, match="the time is up"):
        append(mine, 1)
    append(mine, 2)
    assert [answer.is_there for answer in answers] == [True, True]
    assert [type(answer.error()) for answer in answers] == [StoreError, type(None)]
    assert bodies(mine) == [line(0), line(1), line(2)]
    assert bodies(others) == [line(0), line(END)]


def test_a_signal_as_the_connection_is_taken_leaves_it_to_others(database, error):
    """A thread that kept the connection without knowing would let nobody write any more."""
    run = new_run(database)
    append(run, 0)
    lock = run._writer.database.lock = Lock(run._writer.database, error)
    with pytest.raises(error, match="the time is up"):
        append(run, 1)
    assert lock.acquire.came
    other = threading.Thread(target=append, args=(run, 2))
    other.start()
    other.join(10)
    assert not other.is_alive()
    assert bodies(run) == [line(0), line(1), line(2)]


class Lock:
    """A lock of which `acquire` is followed by a signal, once it has been acquired."""

    def __init__(self, database: Database, error: type[BaseException]) -> None:
        self._lock = database.lock
        self.acquire = Interrupts(self._lock.acquire, error)
        self.release, self._is_owned = self._lock.release, self._lock._is_owned

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
