"""Times of records whose writer sat in another time zone."""

import datetime as dt

import pytest

from burr_otel.records.read import time_of, writer_zone

LOCAL, UTC = "2024-08-27T11:58:33.909654", "2024-08-27T18:58:33.909683Z"


@pytest.fixture(autouse=True)
def reader_zone(monkeypatch):
    """Run the test as a reader in India."""
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc_ns(text):
    return round(dt.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1e6) * 1000


def told(record, *log):
    return time_of(record, lambda: writer_zone(log))


def test_a_time_with_a_zone_is_taken_as_it_is():
    """Burr writes steps without a zone and attributes with one."""
    assert told({"time_logged": "1970-01-01T00:00:01Z"}) == 1_000_000_000
    assert told({"time_logged": "1970-01-01T02:00:00.000002+02:00"}) == 2_000


@pytest.mark.parametrize("text", [None, 5, "", "yesterday", "2024-13-01T00:00:00", {}])
def test_what_is_no_time_is_none(text):
    """A damaged record must not stop the reading."""
    assert told({"start_time": text}) == 0


def test_the_zone_of_the_writer_is_learnt_from_the_log():
    """The recorded local times are read in the writer's zone (here UTC-7), not the reader's."""
    log = {"start_time": LOCAL}, {"time_logged": UTC}
    assert told({"start_time": "2024-08-27T11:58:33.900"}, *log) == utc_ns(
        "2024-08-27T18:58:33.900"
    )


def test_the_zone_is_also_learnt_from_a_record_of_ours():
    """One that has both times."""
    exact = {"start_time": LOCAL, "otel": {"time_unix_nano": utc_ns("2024-08-27T18:58:33.909654")}}
    assert told({"start_time": "2024-08-27T11:00:00"}, exact) == utc_ns("2024-08-27T18:00:00")


@pytest.mark.parametrize(
    "log", [[], [{"start_time": LOCAL}, {"time_logged": "1999-01-01T00:00:00Z"}]]
)
def test_without_a_hint_the_zone_of_the_reader_counts(log):
    """Of a log with local times only, or with times that are years apart."""
    assert told({"start_time": "2024-08-27T11:58:33"}, *log) == utc_ns("2024-08-27T06:28:33")


def test_exact_times_pass_through():
    """Nanoseconds that the tracker recorded are not touched, nor mixed with what is less exact."""
    assert told({"start_time": LOCAL, "otel": {"time_unix_nano": 123}}) == 123
    assert told({"start_time": LOCAL, "otel": {"session": "s"}}) == 0
