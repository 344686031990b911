"""Text made safe and short for a terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from burr_otel.view.text import clean, duration, fit, local_time, one_line, plural

ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\rb", "a␍b"),
        ("a\r\nb", "a\nb"),
        ("\x9b2J", "\\u009b2J"),
        ("x\u202egpj.exe", "x\\u202egpj.exe"),
        ("\ud800", "\\ud800"),
        ("del\x7f", "del␡"),
        ("plain ünïcode ✓", "plain ünïcode ✓"),
    ],
)
def test_what_a_terminal_acts_on_becomes_visible(hostile, shown):
    """Escape sequences, control characters and overrides are shown, not obeyed."""
    assert clean(hostile) == shown


@given(st.text())
def test_no_text_keeps_an_active_character(text):
    """Whatever the text, nothing that a terminal obeys is left, and it can be encoded."""
    assert not ACTIVE.search(clean(text))
    clean(text).encode()
    assert "\n" not in one_line(text)


@given(st.text(max_size=40), st.integers(0, 30))
def test_fit_gives_exactly_the_cells(text, cells):
    """Columns stay straight also under wide and combining characters."""
    assert cell_len(fit(one_line(text), cells)) == cells


def test_long_text_is_cut_with_an_ellipsis():
    """A message of megabytes costs no more than what is shown of it."""
    assert one_line("x" * 10_000_000, limit=20) == "x" * 19 + "…"
    assert one_line("short", limit=20) == "short"


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0 µs"),
        (-5, "0 µs"),
        (412_345, "412 µs"),
        (12_345_678, "12.3 ms"),
        (123_456_789, "123 ms"),
        (1_234_567_890, "1.23 s"),
        (59_990_000_000, "59.99 s"),
        (125_000_000_000, "2m 05s"),
        (3_720_000_000_000, "1h 02m"),
        (200_000_000_000_000, "2d 07h"),
    ],
)
def test_durations_read_well_and_fit_eight_cells(ns, shown):
    """Each magnitude has its unit, and the column never overflows."""
    assert duration(ns) == shown
    assert len(shown) <= 8


def test_absurd_times_do_not_raise():
    """A damaged record may claim any time at all."""
    assert local_time(10**30) == "?"
    assert local_time(0)[:3] in ("197", "196")


def test_plural():
    """Counts read as a sentence would."""
    assert plural(1, "step") == "1 step"
    assert plural(2000, "step") == "2,000 steps"
