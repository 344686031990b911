"""Cut texts keep their head, say what is missing, and fit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burr_otel.content.truncate import SMALLEST_ROOM, clip, json_text, scrub

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def test_a_text_with_room_stays_as_it_is():
    """Nothing is added to a text that fits exactly, and nothing is reported missing."""
    assert json_text("héllo", 8) == ('"héllo"'.encode(), False)
    assert clip("héllo", 6) == ("héllo", False)


def test_a_cut_text_keeps_its_head_and_counts_the_rest():
    """The note says how many characters are missing, of those never looked at too."""
    piece, cut = json_text("abcdefghij" * 10, 60, unseen=900)
    assert cut
    assert json.loads(piece) == "abcdefghijabcdefghijabcdefghijab... [968 more characters]"
    assert clip("abcdefghij" * 10, 40) == ("abcdefghijabcde... [85 more characters]", True)


def test_unseen_characters_alone_make_a_text_cut():
    """A text of which the rest was never read is cut even if its head fits."""
    assert clip("abc", 100, unseen=7) == ("abc... [7 more characters]", True)
    assert json_text("abc", 100, unseen=7) == (b'"abc... [7 more characters]"', True)


def test_too_little_room_for_a_note_gives_dots():
    """The smallest room still yields a valid JSON string."""
    assert json_text("abcdefghij", SMALLEST_ROOM) == (b'"..."', True)
    assert clip("abcdefghij", 3) == ("...", True)


@pytest.mark.parametrize("tail", ['"', "\\", "\n", "\0", "é", "€", "👪"])
@pytest.mark.parametrize("room", range(40, 50))
def test_the_cut_never_splits_an_escape_or_a_character(tail, room):
    """Wherever the cut falls, the result is JSON and its head is a head of the text."""
    text = "ab" + tail * 100
    piece, cut = json_text(text, room)
    shown = json.loads(piece)
    head, _, note = shown.rpartition("... [")
    assert cut
    assert len(piece) <= room
    assert text.startswith(head)
    assert note == f"{len(text) - len(head)} more characters]"


@given(
    st.text("ab ", max_size=200),
    st.sampled_from(["", "", "é", '"', "\\", "\n", "€"]),
    st.integers(0, 200),
    st.integers(40, 150),
)
def test_a_text_of_one_byte_a_character_is_cut_as_any_other(text, odd, at, room):
    """The head is the longest that fits, whether or not a character of more bytes is in it."""
    text = text[:at] + odd + text[at:]
    piece, cut = json_text(text, room, unseen=1_000)
    head, _, count = json.loads(piece)[: -len(" more characters]")].rpartition("... [")
    assert cut
    assert text.startswith(head)
    assert int(count) == len(text) - len(head) + 1_000
    longer = json.dumps(text[: len(head) + 1], ensure_ascii=False).encode()
    room_of_head = room - len(f"... [{len(text) + 1_000} more characters]")
    assert head == text or len(longer) > room_of_head


@given(TEXTS, st.integers(SMALLEST_ROOM, 400), st.integers(0, 10_000))
def test_json_text_fits_and_counts(text, room, unseen):
    """For any text and room: valid JSON, within room, head plus count gives the whole length."""
    piece, cut = json_text(text, room, unseen=unseen)
    assert len(piece) <= room
    shown = json.loads(piece)
    if not cut:
        assert shown == text
        assert unseen == 0
    elif shown != "...":
        head, _, note = shown.rpartition("... [")
        assert text.startswith(head)
        assert int(note.split()[0]) == len(text) + unseen - len(head)


@given(TEXTS, st.integers(3, 400), st.integers(0, 10_000))
def test_clip_fits_and_counts(text, limit, unseen):
    """The same for plain text, measured in bytes of UTF-8."""
    shown, cut = clip(text, limit, unseen=unseen)
    assert len(shown.encode()) <= limit
    if not cut:
        assert shown == text
    elif shown != "...":
        head, _, note = shown.rpartition("... [")
        assert text.startswith(head)
        assert int(note.split()[0]) == len(text) + unseen - len(head)


@given(st.text())
def test_scrubbed_text_can_be_written_as_utf8(text):
    """No lone surrogate survives, and everything else does."""
    scrubbed = scrub(text)
    scrubbed.encode()
    assert len(scrubbed) == len(text)
    assert all(
        a == b or (0xD800 <= ord(a) < 0xE000 and b == "\ufffd")
        for a, b in zip(text, scrubbed, strict=True)
    )
