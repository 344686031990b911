"""Times of records whose writer sat in another time zone."""

import pytest

from burr_otel.history.times import Moment, WriterZone, moment

HOUR_NS = 3600 * 10**9


@pytest.fixture
def reader_zone(monkeypatch):
    """Run the test as a reader in India."""
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_moments_keep_whether_they_are_local():
    """Burr writes steps without a zone and attributes with one."""
    assert moment("1970-01-01T00:00:01.000002") == Moment(1_000_002_000, local=True)
    assert moment("1970-01-01T00:00:01Z") == Moment(1_000_000_000, local=False)
    assert moment("1970-01-01T02:00:00+02:00") == Moment(0, local=False)


@pytest.mark.parametrize("text", [None, 5, "", "yesterday", "2024-13-01T00:00:00", {}])
def test_what_is_no_time_is_none(text):
    """A damaged record must not stop the reading."""
    assert moment(text) is None


def test_writer_zone_is_learnt_from_the_log(reader_zone):
    """The recorded local times are read in the writer's zone (here UTC-7), not the reader's."""
    zone = WriterZone()
    zone.observe(moment("2024-08-27T11:58:33.909654"))
    zone.observe(moment("2024-08-27T18:58:33.909683Z"))
    assert zone.ns(moment("2024-08-27T11:58:33.900")) == moment("2024-08-27T18:58:33.900Z").ns


def test_without_a_hint_the_reader_zone_counts(reader_zone):
    """A log with local times only is read as written here."""
    zone = WriterZone()
    zone.observe(moment("2024-08-27T11:58:33"))
    assert zone.ns(moment("2024-08-27T11:58:33")) == moment("2024-08-27T06:28:33Z").ns


def test_absurd_pairs_teach_nothing(reader_zone):
    """A time with a wrong zone, years away, does not move the whole run."""
    zone = WriterZone()
    zone.observe(moment("2024-08-27T11:58:33"))
    zone.observe(moment("1999-01-01T00:00:00Z"))
    assert zone.ns(moment("2024-08-27T11:58:33")) == moment("2024-08-27T06:28:33Z").ns


def test_exact_times_pass_through():
    """Nanoseconds that the tracker recorded are not touched."""
    zone = WriterZone()
    zone.pair(5 * HOUR_NS, 0)
    assert zone.ns(Moment(123, local=False)) == 123
    assert zone.ns(Moment(5 * HOUR_NS + 7, local=True)) == 7
