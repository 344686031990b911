"""Scarce room is shared so that small parts survive whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burr_otel.content.shares import write_in_shares


def share(sizes: list[int], room: int, large: set[int] = frozenset()) -> tuple[list[int], bool]:
    """The bytes that parts of these sizes get."""

    def write(number: int, most: int) -> tuple[bytes, bool]:
        return b"x" * min(sizes[number], most), sizes[number] > most

    parts, cut = write_in_shares(len(sizes), room, write, large)
    return [len(part) for part in parts], cut


def test_small_parts_stay_whole_and_large_ones_share_the_rest():
    """What the small ones leave goes to the large ones, equally."""
    assert share([10, 1000, 20, 1000], 430) == ([10, 200, 20, 200], True)


def test_parts_that_all_fit_are_not_cut():
    """A large part uses what the others leave."""
    assert share([10, 150, 10], 200) == ([10, 150, 10], False)
    assert share([10, 150, 10], 200, {1}) == ([10, 150, 10], False)


def test_parts_known_to_be_large_are_written_once():
    """The first round leaves them out."""
    asked = []

    def write(number: int, most: int) -> tuple[bytes, bool]:
        asked.append(number)
        return b"x" * min((5, 1000)[number], most), number == 1

    write_in_shares(2, 100, write, {1})
    assert asked[:2] == [0, 1]


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=20),
    st.integers(0, 3000),
    st.sets(st.integers(0, 19)),
)
def test_the_room_is_never_exceeded(sizes, room, large):
    """Whatever is guessed to be large, all parts together fit, and none is written by mistake."""
    large = {number for number in large if number < len(sizes)}
    given_bytes, cut = share(sizes, room, large)
    assert sum(given_bytes) <= room
    assert cut == (given_bytes != sizes)
    if sum(sizes) <= room and max(sizes) <= room // len(sizes):
        assert not cut
