"""The engine in PostgreSQL against a real server: what only it can get wrong.

What every engine must hold is in tests/conformance.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

import psycopg
import pytest
from postgres_server import PgBouncer, Postgres
from programs import in_child
from store_support import ENDED, begin, run_step

from burr_otel.errors import RunInUseError, RunLockedError, SnapshotError, StoreError
from burr_otel.store import Store
from burr_otel.store.port import BEGIN, END, ROOT, DisplacedError, NewRun
from burr_otel.store.postgres import database as database_module
from burr_otel.store.postgres.database import Database, Sent
from burr_otel.store.postgres.engine import PostgresEngine
from burr_otel.store.postgres.run import PostgresRun
from burr_otel.store.process import this_owner


def new_run(url: str, app_id: str = "a") -> PostgresRun:
    run, _ = PostgresEngine(url).create(
        NewRun("p", app_id, None, b"{}", b'{"g":1}'), durability="flush"
    )
    assert isinstance(run, PostgresRun)
    return run


def line(number: int, kind: str = "end_entry") -> bytes:
    return b'{"type":"%b","sequence_id":%d,"otel":{"session":"s"}}\n' % (kind.encode(), number)


def append(run: PostgresRun, number: int, **more: object) -> tuple[int, int]:
    return run.append(line(number), (END, number), durability="flush", **more)


def bodies(run: PostgresRun) -> list[bytes]:
    return [each.data for each in run.forward()]


def other_process(url: str, numbers: range) -> None:
    """Another process appends to the run."""

    def work() -> None:
        run = new_run(url)
        for number in numbers:
            append(run, number)

    assert in_child(work) == 0


def test_numbers_are_offsets_and_continue_without_gaps(database):
    """A record's number is where it begins, as if the run were a file."""
    run = new_run(database)
    ends = [append(run, number) for number in range(3)]
    assert [start for start, _ in ends] == [0, ends[0][1], ends[1][1]]
    assert run.extent().size_bytes == ends[-1][1] == sum(map(len, bodies(run)))


def test_what_nobody_looks_for_belongs_to_the_record_after_it(database):
    """An attribute is written unawaited, and no later record seems to have others before it."""
    run = new_run(database)
    first = append(run, 0)
    assert run.append(b'{"a":1}\n', durability="flush") == (-1, -1)
    assert append(run, 1)[0] == first[1]


def test_another_process_is_noticed_and_renumbered_around(database):
    """Records of two processes in one run are all there, each once, in the order of writing."""
    run = new_run(database)
    append(run, 0)
    other_process(database, range(1, 4))
    start, _ = append(run, 4)
    assert [each.data for each in run.forward()] == [line(n) for n in range(5)]
    assert start == 4 * len(line(0))


def test_a_difference_is_not_written_behind_another_process(database):
    """Compare-and-append: after others wrote, a record that builds on ours is refused."""
    run, mark = new_run(database), object()
    append(run, 0, mark=mark)
    append(run, 1, after=mark, mark=mark)
    other_process(database, range(2, 3))
    with pytest.raises(DisplacedError):
        append(run, 3, after=mark)
    assert bodies(run) == [line(n) for n in range(3)]
    append(run, 3)
    assert bodies(run)[-1] == line(3)


def test_threads_share_one_connection_and_their_records_go_together(database, postgres: Postgres):
    """Eight threads in eight runs: every record is there, over one connection of the process."""
    runs = [new_run(database, f"app-{n}") for n in range(8)]

    def write(run: PostgresRun) -> None:
        for number in range(50):
            run.append(line(number, "begin_entry"), (BEGIN, number), durability="flush")
            append(run, number)

    threads = [threading.Thread(target=write, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs:
        assert [each for each in bodies(run) if b"end_entry" in each] == [
            line(n) for n in range(50)
        ]
    ((connections,),) = postgres.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'burr-otel' "
        f"AND datname = '{database.rpartition('/')[2]}'"
    )
    assert connections == 1


def test_eight_processes_write_into_one_run(database):
    """Every record of eight processes is there once, and each one's own order is kept."""
    new_run(database)
    pids = []
    for writer in range(8):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run = new_run(database)
                for number in range(25):
                    append(run, writer * 1000 + number)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    found = bodies(new_run(database))
    for writer in range(8):
        mine = [line(writer * 1000 + number) for number in range(25)]
        assert [each for each in found if each in set(mine)] == mine
    assert len(found) == 200


def test_a_forked_child_has_a_connection_of_its_own(database):
    """Parent and child go on writing, and the child's end does not close the parent's connection."""
    run = new_run(database)
    append(run, 0)
    assert in_child(lambda: append(run, 1)) == 0
    assert in_child(lambda: None) == 0
    append(run, 2)
    assert bodies(run) == [line(0), line(1), line(2)]


def test_no_text_of_an_engine_has_the_password(database):
    """Nor of what it is made of."""
    engine = PostgresEngine(database.replace("postgres@", "postgres:hush@"))
    assert engine.projects() == []
    assert "hush" not in f"{engine!r}{engine.place}{vars(engine)}"


def test_a_lease_decides_who_lives(database, postgres: Postgres):
    """This process lives; one whose lease has run out by the server's clock does not."""
    run = new_run(database)
    owner = {**this_owner(), "host": "elsewhere"}
    assert run.owner_lives(owner) is False
    run.mark_open("s", b"{}")
    run.flush()
    name = database.rpartition("/")[2]
    postgres.execute("UPDATE burr_otel.writer SET host = 'elsewhere'", name)
    assert run.owner_lives(owner) is True
    postgres.execute("UPDATE burr_otel.writer SET lease_until = now() - interval '1 s'", name)
    assert run.owner_lives(owner) is False


def test_a_claim_lasts_as_long_as_its_process(database, postgres: Postgres):
    """A claim is refused while its holder lives, and taken over once the holder's lease is over."""
    new_run(database)

    def die_with_a_claim() -> None:
        new_run(database).claim("theirs")

    assert in_child(die_with_a_claim) == 0
    run = new_run(database)
    with pytest.raises(RunLockedError, match="held by session theirs of process"):
        run.claim("ours")
    name = database.rpartition("/")[2]
    postgres.execute("UPDATE burr_otel.writer SET lease_until = now() - interval '1 s'", name)
    run.claim("ours").release()
    run.flush()
    run.claim("next").release()


def test_who_lost_a_claim_writes_nothing_more(database, postgres: Postgres):
    """A process that slept through its lease cannot write into a run that another one has now."""
    run = new_run(database)
    claim = run.claim("ours")
    append(run, 0)
    name = database.rpartition("/")[2]
    postgres.execute("UPDATE burr_otel.run SET claim = 'theirs', claimed_by = NULL", name)
    with pytest.raises(RunLockedError, match="theirs"):
        append(run, 1)
    claim.release()
    assert bodies(run) == [line(0)]
    assert postgres.execute("SELECT claim FROM burr_otel.run", name) == [("theirs",)]


def test_a_session_is_completed_by_one_at_a_time(database, postgres: Postgres):
    """A hold excludes threads and processes, and ends with its holder's lease."""
    run = new_run(database)
    run.mark_open("s", b"{}")

    def others_get_it() -> bool:
        def work() -> None:
            with new_run(database).hold("s") as ours:
                os._exit(7 if ours else 8)

        return in_child(work) == 7

    with run.hold("s") as ours:
        assert ours
        with run.hold("s") as again:
            assert not again
        assert not others_get_it()
    assert others_get_it()  # and dies with it
    with run.hold("s") as ours:
        assert not ours
    name = database.rpartition("/")[2]
    postgres.execute("UPDATE burr_otel.writer SET lease_until = now() - interval '1 s'", name)
    with run.hold("s") as ours:
        assert ours


def test_an_application_role_needs_neither_update_nor_delete_on_records(
    database, postgres: Postgres
):
    """With the grants that `store init --print` lists, everything but deletion works."""
    name = database.rpartition("/")[2]
    role = f"role-{name[-8:]}"
    grants = [
        each.removeprefix("-- ").replace("TO app;", f'TO "{role}";')
        for each in PostgresEngine(database).prepare(dry_run=True)[-1].splitlines()
        if each.startswith("-- GRANT") and "DELETE ON burr_otel.run" not in each
    ]
    postgres.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'; {' '.join(grants)}", name)
    run = new_run(postgres.url(name, role, "x"))
    append(run, 0)
    run.mark_open("s", b"{}")
    run.claim("s").release()
    with run.hold("s"):
        pass
    run.unmark("s")
    run.complete(b"{}", b'{"g":2}', sync=True)
    run.add_child(b"{}", sync=True)
    assert bodies(run) == [line(0)]
    rows = "SELECT has_table_privilege('{0}', 'burr_otel.record', 'UPDATE'), has_table_privilege('{0}', 'burr_otel.record', 'DELETE')"
    assert postgres.execute(rows.format(role), name) == [(False, False)]


def test_everything_works_through_pgbouncer(postgres: Postgres, pgbouncer: PgBouncer, database):
    """In transaction mode each statement may meet another connection, and that does not matter."""
    name = database.rpartition("/")[2]
    run = new_run(pgbouncer.url(name))
    mark = None
    for number in range(40):
        after, mark = mark, object()
        append(run, number, after=after, mark=mark)
    run.mark_open("s", b"{}")
    assert [found for found, _ in run.open_markers()] == ["s"]
    claim = run.claim("s")
    append(run, 40)
    claim.release()
    assert len(list(run.backward())) == 41
    assert [each.data for each in run.newest((END,), 7)] == [line(7)]
    backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'"
    ((used,),) = postgres.execute(backends.format(name))
    assert used >= 1


def test_a_dropped_connection_is_made_again(database, postgres: Postgres):
    """The server ends the connection between two records; nothing is lost and nothing twice."""
    run = new_run(database)
    append(run, 0)
    name = database.rpartition("/")[2]
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    append(run, 1)
    assert bodies(run) == [line(0), line(1)]


def test_after_a_lost_answer_it_is_looked_what_is_there(database, monkeypatch):
    """A record whose answer was lost on the way is written once."""
    run = new_run(database)
    append(run, 0)
    writer = run._writer
    real, lost = writer.database.answer, []

    def losing(sent: Sent, *rest: object) -> object:
        answer = real(sent, *rest)
        if answer == [(1,)] and len(lost) < 2:
            lost.append(sent)
            raise psycopg.OperationalError("the answer was lost")
        return answer

    monkeypatch.setattr(writer.database, "answer", losing)
    append(run, 1)
    append(run, 2)
    assert len(lost) == 2
    assert bodies(run) == [line(0), line(1), line(2)]


@pytest.mark.parametrize(
    ("fault", "is_kept"),
    [
        ("RAISE 'not at the commit'", False),
        # Not rolled back, so that it ends the first connection alone.
        (
            "IF nextval('once') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF",
            True,
        ),
    ],
)
def test_a_record_is_kept_once_it_is_committed(database, postgres: Postgres, fault, is_kept):
    """The server tells that a statement was carried out, and only then that its commit failed."""
    run = new_run(database)
    append(run, 0)
    name = database.rpartition("/")[2]
    postgres.execute(
        "CREATE SEQUENCE once; CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {fault}; RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON burr_otel.record "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fault()",
        name,
    )
    with contextlib.nullcontext() if is_kept else pytest.raises(StoreError, match="at the commit"):
        append(run, 1)
    assert bodies(run) == [line(0), line(1)][: 1 + is_kept]


def test_ten_thousand_runs_of_a_partition_are_listed_at_once(
    database, postgres: Postgres, monkeypatch
):
    """Of twenty thousand, with a statement for each five thousand."""
    from burr_otel.store import Store

    postgres.execute(
        "INSERT INTO burr_otel.run (project, partition_key, app_id, metadata, graphs) "
        "SELECT 'p', 'half-' || n % 2, 'app-' || n, '{}', '{g}' FROM generate_series(1, 20000) AS n",
        database.rpartition("/")[2],
    )
    store, asked = Store("p", database), []
    real, own = Database.send, store.engine._writer.database

    def send(self, sql, *rest):
        if self is own:  # threads of other tests' databases may still be at work
            asked.append(sql)
        return real(self, sql, *rest)

    monkeypatch.setattr(Database, "send", send)
    assert store.list_app_ids("half-1") == sorted(f"app-{n}" for n in range(1, 20000, 2))
    assert 2 <= len(asked) <= 4
    assert sum(run.extent().size_bytes for run in store.engine.runs("p", "half-0")) == 0
    assert len(asked) <= 10


def test_a_run_is_not_deleted_while_a_session_of_it_is_not_marked_yet(database):
    """Its marker is not waited for: until it is there, the session's first record tells."""
    store, run = Store("p", database), new_run(database)
    begun = b'{"type":"otel_root","otel":{"session":"s1"}}\n'
    run.append(begun, (ROOT, -1), durability="flush")
    assert list(run.open_markers()) == []  # nothing that a copy could take with it
    with pytest.raises(RunInUseError, match="s1 is just beginning"):
        store.delete("a", dead_before_ns=1)
    run.append(begun.replace(b"root", b"root_end"), durability="flush")
    store.delete("a", dead_before_ns=1)
    assert not store.exists("a")


def test_a_deletion_sees_what_was_written_while_it_waited(database):
    """Also where transactions see what was there as they began, by the server's settings."""
    url = f"{database}?options=-c%20default_transaction_isolation%3Dserializable"
    new_run(database)
    run = PostgresEngine(url).find("p", "a", None)
    assert run is not None
    with run.undisturbed():
        asked = "SELECT current_setting('transaction_isolation')"
        assert run._query(asked) == [("read committed",)]


def test_a_deletion_keeps_nobody_else_waiting(database):
    """It may take minutes: other runs go on meanwhile, and the lease of the process is renewed."""
    run, other = new_run(database), new_run(database, app_id="b")
    added = threading.Event()

    def add():
        other.append(b"{}\n", (BEGIN, 0), durability="flush")
        added.set()

    with run.undisturbed():
        threading.Thread(target=add, daemon=True).start()
        assert added.wait(60)
        PostgresEngine(database).delete(run)
    assert PostgresEngine(database).find("p", "a", None) is None


def test_a_deletion_that_loses_its_connection_deletes_nothing(database):
    """With it the lock is lost: a session may have begun since the run was found unused."""
    run = new_run(database)
    with pytest.raises(ConnectionError), run.undisturbed():
        ((pid,),) = run._query("SELECT pg_backend_pid()")
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        PostgresEngine(database).delete(run)
    assert not run._writer.database.is_down  # the next statement waits for the server as ever
    assert PostgresEngine(database).find("p", "a", None) is not None


def test_a_run_that_is_deleted_while_it_is_opened_is_made_anew(database, monkeypatch):
    """A server resumes a run at the very moment at which it is pruned: nothing fails."""
    store = Store("p", database)
    session = begin(store)
    run_step(session, 0)
    session.end(ENDED)
    inner, deleted = PostgresRun.complete, []

    def complete(run: PostgresRun, *told: bytes, sync: bool) -> bool:
        if not deleted:
            store.engine.delete(run)
        deleted.append(run.run_id)
        return inner(run, *told, sync=sync)

    monkeypatch.setattr(PostgresRun, "complete", complete)
    session = begin(store)
    run_step(session, 1)
    assert store.load(None, "a")["sequence_id"] == 1
    store.engine.delete(store.read("a").log)
    with pytest.raises(SnapshotError, match="the run was deleted while it was live"):
        run_step(session, 2)


def test_a_long_record_may_take_long_to_be_sent(database, monkeypatch):
    """On a slow network: a second more for each MiB."""
    run, untils, inner = new_run(database), [], database_module._flush
    append(run, 0)

    def flush(pgconn, until: float) -> None:
        untils.append(until)
        inner(pgconn, until)

    monkeypatch.setattr(database_module, "_flush", flush)
    began_s = time.monotonic()
    run.append(b'{"pad":"%b"}\n' % (b"x" * 30 * 1024 * 1024), (END, 1), durability="flush")
    assert untils[0] >= began_s + 30


def test_a_record_that_the_server_refuses_costs_no_other(database, postgres: Postgres):
    """Of a group of which one cannot be written, the rest is."""
    name = database.rpartition("/")[2]
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 13)", name)
    runs = [new_run(database, f"app-{n}") for n in range(4)]
    refused = []

    def write(run: PostgresRun, number: int) -> None:
        try:
            append(run, number)
        except Exception as error:
            refused.append((number, str(error)))

    with runs[0]._writer.database.lock:  # so that all four gather
        threads = [threading.Thread(target=write, args=(run, 11 + n)) for n, run in enumerate(runs)]
        for thread in threads:
            thread.start()
        while len(runs[0]._writer._queue) < 4:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert [number for number, _ in refused] == [13]
    assert "check constraint" in refused[0][1]
    assert [bodies(run) for run in runs] == [[line(11)], [line(12)], [], [line(14)]]
    append(runs[2], 15)
    assert bodies(runs[2]) == [line(15)]
