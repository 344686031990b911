"""Time mapped onto columns."""

from hypothesis import given
from hypothesis import strategies as st

from burr_otel.view.rows import Axis

S = 10**9


def test_without_pauses_the_axis_is_linear():
    """Half the time is half the width."""
    axis = Axis([(0, 4 * S), (4 * S, 10 * S)], (0, 10 * S))
    assert axis.pauses == []
    assert [axis.at(t * S, 100) for t in (0, 5, 10)] == [0, 50, 100]


def test_a_long_pause_is_cut_out():
    """Two short bursts an hour apart get nearly the whole width between them."""
    axis = Axis([(0, S), (3601 * S, 3602 * S)], (0, 3602 * S))
    assert axis.pauses == [(S, 3601 * S)]
    assert axis.at(S, 100) > 45
    assert axis.at(3601 * S, 100) < 55


def test_short_gaps_stay_as_they_are():
    """What a reader may want to see, a gap between two steps, is not hidden."""
    axis = Axis([(0, 5 * S), (6 * S, 10 * S)], (0, 10 * S))
    assert axis.pauses == []


def test_the_linger_of_a_session_is_a_pause():
    """A session that outlives its steps by far does not squeeze them."""
    axis = Axis([(0, S)], (0, 600 * S))
    assert axis.at(S, 100) > 90


def test_an_empty_session_has_an_axis():
    """Nothing ran, nothing divides by zero."""
    axis = Axis([], (5, 5))
    assert axis.at(5, 10) == 0
    assert Axis([(5, 5)], (5, 5)).at(5, 10) == 0


@given(
    st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**11)), max_size=12),
    st.lists(st.integers(0, 2 * 10**13), min_size=2, max_size=2),
)
def test_later_is_never_further_left(spans, moments):
    """Whatever the spans, positions grow with time and stay on the line."""
    axis = Axis([(s, s + length) for s, length in spans], (0, 10**13))
    first, second = (axis.at(t, 80) for t in sorted(moments))
    assert 0 <= first <= second <= 80 + 1e-9
