"""What every engine does: the port, without anything above it."""

import itertools
import threading

import orjson
import pytest

from burr_otel.errors import RunLockedError
from burr_otel.store.graphs import digest
from burr_otel.store.port import ALL, BEGIN, END, INHERITED, ROOT, DisplacedError, NewRun
from burr_otel.store.process import this_owner

GRAPH = b'{"type":"application","entrypoint":"one","actions":[],"transitions":[]}'
OTHER = GRAPH.replace(b"one", b"two")
KEYS = [
    None,
    "p",
    "q",
    "a\0b",
    "'; DROP TABLE run; --",
    "50%_\\",
    "日本 é\u0301",
    "k" * 3000,
    "P",
    " ",
]
APP_IDS = ["a", "A", "a b", "é" * 127, "x" * 255, ".hidden", "a:b", "-", "%2e", "a\nb", "日本", "~", "a?b#c&d"]  # fmt: skip


def make(engine, app_id="a", key=None, project="proj", graph=GRAPH):
    """A run; whether it was made."""
    told = {"type": "application_metadata", "partition_key": key, "otel": {"app_id": app_id}}
    metadata = orjson.dumps(told)
    return engine.create(NewRun(project, app_id, key, metadata, graph), durability="flush")


@pytest.fixture
def run(engine):
    made, was_made = make(engine)
    assert was_made
    return made


def line(kind, number=0, pad=0):
    """A record as the store writes one."""
    if kind == BEGIN:
        text = b'{"type":"begin_entry","sequence_id":%d' % number
    elif kind == END:
        text = b'{"type":"end_entry","sequence_id":%d' % number
    elif kind == ROOT:
        text = b'{"type":"otel_root"'
    elif kind == INHERITED:
        text = b'{"type":"otel_root","inherited_sequence_id":%d,"state":{}' % number
    else:
        text = b'{"type":"attribute"'
    return text + b',"pad":"' + b"x" * pad + b'"}\n'


def append(run, kind, number=0, pad=0, **more):
    """Append a record with its entry; the line."""
    text = line(kind, number, pad)
    entry = None if kind is None else (kind, -1 if kind == ROOT else number)
    run.append(text, entry, durability="flush", **more)
    return text


def lines_of(run):
    return [each.data for each in run.forward()]


# --- runs of an engine ---------------------------------------------------------------------------


def test_a_run_is_made_once(engine):
    """Whoever comes second gets the same run, and changes nothing of it."""
    run, made = make(engine)
    again, made_again = make(engine, graph=OTHER)
    assert (made, made_again) == (True, False)
    assert (again.project, again.app_id, again.partition_key) == ("proj", "a", None)
    append(run, ROOT)
    assert lines_of(again) == [line(ROOT)]
    assert again.graph() == GRAPH
    assert again.metadata() == run.metadata()
    assert b'"app_id":"a"' in run.metadata()


def test_of_threads_that_make_a_run_at_once_one_makes_it(engine):
    """And all go on with it."""
    barrier, made = threading.Barrier(8), []

    def work():
        barrier.wait()
        run, was_made = make(engine)
        made.append(was_made)
        append(run, None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert len(lines_of(engine.find("proj", "a", None))) == 8


def test_nothing_is_found_where_nothing_is(engine):
    """Of another id, partition or project; before there is anything at all, too."""
    assert engine.find("proj", "a", None) is None
    assert engine.find("proj", "a", ALL) is None
    assert list(engine.runs("proj")) == []
    make(engine, key="p")
    for project, app_id, key in (("proj", "b", ALL), ("proj", "a", None), ("other", "a", ALL)):
        assert engine.find(project, app_id, key) is None


def test_one_app_id_under_many_partition_keys_is_many_runs(engine):
    """Whatever the keys are made of; each run has its own records."""
    for number, key in enumerate(KEYS):
        run, made = make(engine, key=key)
        assert made, key
        append(run, END, number)
    for number, key in enumerate(KEYS):
        run = engine.find("proj", "a", key)
        assert run.partition_key == key
        assert lines_of(run) == [line(END, number)]
    found = [each.partition_key for each in engine.runs("proj")]
    assert sorted(map(repr, found)) == sorted(map(repr, KEYS))
    for key in KEYS:
        assert [each.partition_key for each in engine.runs("proj", key)] == [key]
    assert list(engine.runs("proj", "never")) == []
    first = engine.find("proj", "a", ALL)
    assert first.partition_key is None, "the one that was made first"


def test_app_ids_are_kept_as_they_are(engine):
    """Everything that is no path is one, and no two are taken for the same."""
    for app_id in APP_IDS:
        run, made = make(engine, app_id)
        assert made, app_id
        append(run, ROOT)
    assert sorted(run.app_id for run in engine.runs("proj")) == sorted(APP_IDS)
    for app_id in APP_IDS:
        assert engine.find("proj", app_id, None).app_id == app_id


def test_projects_are_those_that_have_runs(engine):
    """Sorted; runs of one are not listed in another."""
    for project in ("b", "a:1", "C"):
        append(make(engine, project=project)[0], ROOT)
    assert engine.projects() == ["C", "a:1", "b"]
    assert [run.project for run in engine.runs("b")] == ["b"]


def test_a_deleted_run_is_gone(engine, run):
    """Its records, graphs, children and markers; another one of its id begins empty."""
    other, _ = make(engine, key="p")
    append(other, ROOT)
    append(run, END, 1)
    run.complete(run.metadata(), OTHER, sync=False)
    run.add_child(b'{"child":1}', sync=False)
    run.mark_open("s", b"{}")
    engine.delete(run)
    assert engine.find("proj", "a", None) is None
    assert [each.partition_key for each in engine.runs("proj")] == ["p"]
    assert lines_of(other) == [line(ROOT)]
    again, made = make(engine)
    assert made
    assert (lines_of(again), list(again.children()), list(again.open_markers())) == ([], [], [])
    assert again.earlier_graphs() == []
    assert again.graph() == GRAPH


def test_the_place_is_told_without_a_password(engine, run, storage_dir):
    """Of engine and run; what is opened twice has one place."""
    assert run.place.startswith(engine.place)
    assert "hunter2" not in run.place
    assert engine.find("proj", "a", ALL).place == run.place


# --- records of a run ----------------------------------------------------------------------------


def test_records_come_back_as_they_were_written(run):
    """Byte for byte and in order, both ways, whole or in pieces, of any length."""
    written = [line(ROOT), line(BEGIN, 1, 3), line(END, 1, 100_000), line(None), line(END, 2)]
    written.append(b'{"type":"attribute","x":"\\u0000\xc3\xa9\xff\x00 \\ud800"}\n')
    for text in written:
        run.append(text, durability="flush")
    run.append([written[0][:5], written[0][5:9], written[0][9:]], durability="flush")
    run.append(b"".join([b'{"x":"', b"y" * 20_000_000, b'"}\n']), durability="flush")
    found = lines_of(run)
    assert found[:-1] == [*written, written[0]]
    assert len(found[-1]) == 20_000_009
    assert [each.data for each in run.backward()] == found[::-1]
    assert run.extent().size_bytes == sum(map(len, found))


def test_positions_order_the_records(run):
    """A record begins where none before it ends; what `append` says is where it is found."""
    said = [run.append(line(None, pad=n), durability="flush") for n in range(20)]
    found = [(each.position, each.end) for each in run.forward()]
    assert all(each.complete for each in run.forward())
    for (begin, end), (following, _) in itertools.pairwise(found):
        assert begin < end <= following
    assert all(place in (own, (-1, -1)) for place, own in zip(said, found, strict=True))
    assert [(each.position, each.end) for each in run.backward()] == found[::-1]


def test_a_run_without_records_has_none(run):
    """Every way of reading it says so."""
    assert (run.extent().size_bytes, lines_of(run), list(run.backward())) == (0, [], [])
    assert list(run.newest((END,))) == []
    assert list(run.children()) == list(run.open_markers()) == []
    assert run.repair() == []


@pytest.mark.parametrize("count", [3, 400])
def test_the_newest_record_of_a_kind_is_found(run, count):
    """Of any step or of one, before a position or at all; others may be among them."""
    append(run, ROOT)
    append(run, INHERITED, 0)
    for number in range(count):
        append(run, BEGIN, number, 40)
        append(run, None, pad=500)
        append(run, END, number, 200)
    run.close()
    append(run, END, 1, 77)  # it was run again
    append(run, ROOT)

    def found(kinds, number=None, before=None, of=()):
        wanted = {line(kind, of_, pad) for kind, of_, pad in of}
        return [each.data for each in run.newest(kinds, number, before) if each.data in wanted]

    every = [(END, n, 200) for n in range(count)] + [(END, 1, 77)]
    assert found((END,), of=every) == [line(END, 1, 77)] + [
        line(END, n, 200) for n in reversed(range(count))
    ]
    once_more = [(END, 1, 200), (END, 1, 77)]
    assert found((END,), 1, of=once_more) == [line(END, 1, 77), line(END, 1, 200)]
    assert found((END, BEGIN), 0, of=[(END, 0, 200), (BEGIN, 0, 40)]) == [
        line(END, 0, 200),
        line(BEGIN, 0, 40),
    ]
    assert found((ROOT,), of=[(ROOT, 0, 0)]) == [line(ROOT)] * 2
    assert found((INHERITED,), 0, of=[(INHERITED, 0, 0)]) == [line(INHERITED, 0)]
    assert found((END,), count + 5, of=[(END, count + 5, 200)]) == []
    again = next(each for each in run.newest((END,)) if each.data == line(END, 1, 77))
    assert found((END,), 1, again.position, of=once_more) == [line(END, 1, 200)]


def test_a_record_that_builds_on_another_follows_it_or_is_not_written(run):
    """Compare and append: behind the newest END of this process, and behind no other."""
    one, two, three = object(), object(), object()
    append(run, END, 0, mark=one)
    append(run, BEGIN, 1)
    append(run, END, 1, after=one, mark=two)
    before = lines_of(run)
    with pytest.raises(DisplacedError):
        append(run, END, 2, after=one, mark=three)
    with pytest.raises(DisplacedError):
        append(run, END, 2, after=three, mark=three)
    assert lines_of(run) == before
    append(run, END, 2)  # of another session in this process
    with pytest.raises(DisplacedError):
        append(run, END, 3, after=two, mark=three)
    append(run, END, 3, mark=three)
    append(run, END, 4, after=three, mark=two)
    assert lines_of(run)[-1] == line(END, 4)


@pytest.mark.parametrize("durability", ["none", "flush", "fsync"])
def test_what_was_appended_is_read_by_this_process(engine, run, durability):
    """At once, or after a flush where it is buffered."""
    for number in range(50):
        run.append(line(END, number), (END, number), durability=durability)
    if durability == "none":
        run.flush()
    found = engine.find("proj", "a", None)
    assert lines_of(found) == [line(END, number) for number in range(50)]
    run.append(line(END, 50), (END, 50), durability=durability)
    engine.close()
    assert lines_of(found)[-1] == line(END, 50)


def test_a_closed_run_goes_on(engine, run):
    """A later append begins anew, after the engine was closed too."""
    append(run, END, 0)
    run.close()
    run.close()
    append(run, END, 1)
    engine.close()
    append(run, END, 2)
    assert lines_of(run) == [line(END, number) for number in range(3)]


def test_the_time_of_the_newest_record_moves_on(run):
    """Never backward."""
    times = []
    for number in range(3):
        append(run, END, number)
        times.append(run.extent().changed_ns)
    assert times == sorted(times)
    assert times[0] > 1_600_000_000_000_000_000


def test_threads_append_to_one_run(run):
    """Nothing is lost or mixed, and each thread's records keep their order."""

    def work(which):
        for number in range(40):
            run.append(b'{"t":%d,"n":%d}\n' % (which, number), durability="flush")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines_of(run)
    assert len(found) == 320
    for which in range(8):
        own = [each for each in found if each.startswith(b'{"t":%d,' % which)]
        assert own == [b'{"t":%d,"n":%d}\n' % (which, number) for number in range(40)]


# --- what is beside the records ------------------------------------------------------------------


def test_a_graph_that_changes_is_current_and_the_earlier_ones_are_kept(run):
    """By their digests."""
    append(run, ROOT)
    assert run.complete(run.metadata(), GRAPH, sync=False) is False
    assert run.earlier_graphs() == []
    assert run.complete(run.metadata(), OTHER, sync=True) is True
    assert run.graph() == OTHER
    assert run.earlier_graphs() == [digest(GRAPH)]
    assert run.graph(digest(GRAPH)) == GRAPH
    assert run.graph("0" * 16) is None
    assert run.graph("../secret") is None


def test_children_are_listed_in_order(run):
    """Any number of lines."""
    for number in range(30):
        run.add_child(b'{"child":%d}' % number, sync=number % 2 == 0)
    found = [each.rstrip(b"\n") for each in run.children()]
    assert found == [b'{"child":%d}' % number for number in range(30)]


def test_open_sessions_are_marked(run):
    """Once each, with what was said of them, until they are not."""
    run.mark_open("s2", b'{"owner":2}')
    run.mark_open("s1", b'{"owner":1}')
    run.mark_open("s1", b"{}")
    assert sorted(run.open_markers()) == [("s1", b'{"owner":1}'), ("s2", b'{"owner":2}')]
    run.unmark("s1")
    run.unmark("s1")
    assert list(run.open_markers()) == [("s2", b'{"owner":2}')]
    run.mark_open("s1", b'{"owner":3}')
    assert min(run.open_markers()) == ("s1", b'{"owner":3}')


def test_one_holds_an_open_session_at_a_time(run):
    """While it is completed for its dead owner; one that is gone cannot be held."""
    run.mark_open("s", b"{}")
    with run.hold("s") as ours:
        assert ours
        with run.hold("s") as theirs:
            assert not theirs
    with run.hold("s") as ours:
        assert ours
        run.unmark("s")
    with run.hold("s") as ours:
        assert not ours


def test_the_owner_of_an_open_session_lives(run):
    """This process does, by whatever the engine knows of it."""
    owner = this_owner()
    run.mark_open("s", b'{"owner":{},"otel":{}}')
    assert run.owner_lives(owner) is not False


def test_a_claim_is_exclusive_until_it_is_released(engine, run):
    """The holder is named; runs beside it are free."""
    claim = run.claim("first")
    with pytest.raises(RunLockedError) as caught:
        engine.find("proj", "a", None).claim("second")
    assert caught.value.run == "proj/a"
    assert caught.value.holder == "first"
    assert caught.value.pid == this_owner()["pid"]
    make(engine, "b")[0].claim("other").release()
    claim.release()
    claim.release()
    run.claim("third").release()
