"""Lines of a file, forward and backward, whatever their lengths: both see the same."""

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burr_otel.store.files import scan

pieces = st.sampled_from(
    [b"\n", b"a", b'{"a":1}\n', b" ", b" " * 40, b"\0", b"\0" * 40, b"x" * 50, b"\n\n", b"y\n"]
)


@pytest.fixture(scope="module", autouse=True)
def _small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_BACKWARD_BYTES", "_FORWARD_BYTES", "MAX_BLOCK_BYTES"):
            patch.setattr(scan, name, 16)
        yield


def told(lines, text):
    """Texts of lines with where they are, which must fit."""
    found = []
    for line in lines:
        if line.data.strip(b" "):
            assert text[line.position : line.end] == line.data
            assert line.complete == line.data.endswith(b"\n")
            if line.data.strip(b"\0"):
                found.append((line.position, line.data))
    return found


@pytest.mark.one_python
@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=20).map(b"".join))
def test_every_record_is_seen_in_its_place_both_ways(text):
    """Blocks of NULs and of spaces stand between; nothing else is left out or seen twice."""
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        fd = file.fileno()
        forward = told(scan.lines_forward(fd, 0, len(text)), text)
        backward = told(scan.lines_backward(fd, len(text)), text)
        if b"\0" not in text:
            expected, at = [], 0
            for line in text.splitlines(keepends=True):
                stripped = line.lstrip(b" ") or line
                expected.append((at + len(line) - len(stripped), stripped))
                at += len(line)
            wanted = [each for each in expected if each[1].strip()]
            assert [each for each in forward if each[1].strip()] == wanted
            assert [each for each in reversed(backward) if each[1].strip()] == wanted
        for at in range(len(text)):
            if text.startswith(b'{"a":1}\n', at) and (not at or text[at - 1 : at] == b"\n"):
                assert (at, b'{"a":1}\n') in forward
                assert (at, b'{"a":1}\n') in backward
        tail = text.rpartition(b"\n")[2]
        if tail and not tail.strip(b" "):
            last = list(scan.lines_forward(fd, 0, len(text)))[-1]
            assert last == (len(text) - len(tail), len(text), b" ", False)
        middle = text.find(b"\n") + 1
        assert all(line.position >= middle for line in scan.lines_backward(fd, len(text), middle))
        assert os.fstat(fd).st_size == len(text)
