"""Exceptions read like Python's own traceback, whole chain, without secrets, and bounded."""

from __future__ import annotations

import asyncio
import builtins
import gc
import linecache
import sys
import traceback
import tracemalloc
import weakref
from typing import Any

import pytest
from hostile import ZOO, TextSubclass

from burr_otel.content import ContentPolicy, capture_exception, raised_of_text
from burr_otel.content.redact import MARKER
from burr_otel.records import Raised

CANARY = "hunter2CANARYx"
POLICY = ContentPolicy()
Group = getattr(builtins, "ExceptionGroup", None)
SMALL = ContentPolicy(max_attribute_bytes=1500)


def raised(action: Any, *arguments: Any) -> BaseException:
    """The exception that an action raises, with its traceback."""
    try:
        action(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def described(policy: ContentPolicy, error: BaseException) -> Raised:
    """What a span shows of an exception."""
    return policy.exception(capture_exception(error, policy.max_attribute_bytes))


def fail(message: Any = "bad") -> None:
    raise ValueError(message)


# --- like Python's own ----------------------------------------------------------------------------


def _python(error: BaseException) -> str:
    """Python's own traceback, without the marks below source lines."""
    text = "".join(traceback.format_exception(error))
    return "\n".join(
        line for line in text.splitlines() if set(line.strip()) - set("~^ ") or not line
    )


def with_cause() -> None:
    try:
        fail("first")
    except ValueError as error:
        raise KeyError("second") from error


def with_context() -> None:
    try:
        fail("first")
    except ValueError:
        fail("second")


def with_hidden_context() -> None:
    try:
        fail("first")
    except ValueError:
        raise RuntimeError("second") from None


def with_long_chain() -> None:
    try:
        with_cause()
    except KeyError:
        with_context()


def with_notes() -> None:
    error = ValueError("bad")
    error.__notes__ = ["a note", "another\nof two lines"]  # as add_note() of Python 3.11 does
    raise error


def with_an_empty_message() -> None:
    raise ValueError


@pytest.mark.parametrize(
    "action",
    [
        fail,
        with_cause,
        with_context,
        with_hidden_context,
        with_long_chain,
        pytest.param(
            with_notes,
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with 3.11"),
        ),
        with_an_empty_message,
    ],
)
def test_the_traceback_reads_like_pythons(action):
    """Frames, source lines, causes, contexts and notes, oldest first."""
    error = raised(action)
    content = described(POLICY, error)
    assert content.traceback == _python(error)


def test_type_and_message():
    """The type has its module, but for built-in ones; the message is what str() says."""
    assert described(POLICY, KeyError("k"))[:2] == ("KeyError", "'k'")
    assert described(POLICY, asyncio.CancelledError())[:2] == (
        "asyncio.exceptions.CancelledError",
        "",
    )
    assert described(POLICY, OSError(2, "No such file", "x"))[:2] == (
        "FileNotFoundError",
        "[Errno 2] No such file: 'x'",
    )


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError()]
)
def test_exceptions_that_are_no_errors_are_described_too(error):
    """Every `BaseException` has a type, message and traceback."""
    content = described(POLICY, raised(lambda: (_ for _ in ()).throw(error)))
    assert content.type == f"{type(error).__module__}.{type(error).__name__}".removeprefix(
        "builtins."
    )
    assert content.traceback.startswith("Traceback (most recent call last):\n")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_groups_show_their_members():
    """Each exception of a group is there with its own traceback, indented, nested groups too."""
    group = raised(
        lambda: (_ for _ in ()).throw(
            Group("several", [raised(with_cause), Group("inner", [raised(fail, "deep")])])
        )
    )
    lines = described(POLICY, group).traceback.splitlines()
    assert lines[0] == "Exception Group Traceback (most recent call last):"
    assert "ExceptionGroup: several (2 sub-exceptions)" in lines
    assert "  +---------------- 1 ----------------" in lines
    assert "    | ValueError: first" in lines
    assert "    | KeyError: 'second'" in lines
    assert "    | ExceptionGroup: inner (1 sub-exception)" in lines
    assert "    |     | ValueError: deep" in lines


# --- bounds ---------------------------------------------------------------------------------------


def _recurse(depth: int) -> None:
    if depth:
        _recurse(depth - 1)
    fail(f"at the bottom, password={CANARY}")


def test_of_many_frames_the_first_and_last_are_kept():
    """A deep recursion shows where it began and where it failed, and says that frames are missing."""
    content = described(POLICY, raised(_recurse, 500))
    lines = content.traceback.splitlines()
    assert "in raised" in lines[1]
    assert lines[-2].strip() == "raise ValueError(message)"
    assert lines[-1] == f"ValueError: at the bottom, password={MARKER}"
    assert any(line.startswith("  ... ") and line.endswith(" frames ...") for line in lines)


@pytest.mark.parametrize("limit", [64, 100, 300, 1000, 4000])
def test_the_newest_exception_survives_the_longest(limit):
    """Within any budget, message and traceback fit, and older exceptions give way first."""

    def chain(length: int) -> None:
        if length == 0:
            fail("the oldest")
        try:
            chain(length - 1)
        except ValueError as error:
            raise ValueError(f"error {length} " + "x" * 200) from error

    policy = ContentPolicy(max_attribute_bytes=limit)
    content = described(policy, raised(chain, 30))
    assert len(content.message.encode()) <= limit
    assert len(content.traceback.encode()) <= limit
    assert "the oldest" not in content.traceback
    if limit >= 300:
        assert "error 30" in content.traceback


def test_huge_messages_are_cut():
    """A message of ten million characters costs and takes no more than the budget."""
    content = described(SMALL, raised(fail, "x" * 10_000_000))
    assert len(content.message) <= 1500
    assert content.message.endswith("more characters]")
    assert "ValueError: xxx" in content.traceback
    assert "in fail" in content.traceback


def test_an_exception_around_a_huge_value_does_not_print_all_of_it():
    """``raise ValueError(items)`` costs what is kept of the items."""
    for error in (
        ValueError([0] * 10_000_000),
        KeyError((0,) * 10_000_000),
        ValueError("a", ["b"] * 1_000_000),
    ):
        content = described(SMALL, error)
        assert content.message.startswith("[")
        assert "more items" in content.message


@pytest.mark.parametrize("error", [KeyError("x" * 10_000_000), ValueError("a", "x" * 10_000_000)])
def test_an_exception_that_would_quote_a_huge_text_does_not_copy_it(error):
    """The message shows the head of the text, and its making takes memory for no more."""
    tracemalloc.start()
    try:
        content = described(SMALL, error)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "xxx... [99" in content.message
    assert peak < 1_000_000


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_groups_of_any_size_are_bounded():
    """A thousand members, or members within members within members, stop at a count."""
    wide = Group("wide", [ValueError(str(number)) for number in range(1000)])
    content = described(POLICY, wide)
    assert "  +-- 985 more exceptions" in content.traceback
    deep: Exception = ValueError("leaf")
    for _ in range(200):
        deep = Group("deep", [deep, deep])
    content = described(POLICY, deep)
    assert len(content.traceback) < 16_384


def test_chains_that_run_in_circles_end():
    """An exception that is its own cause, directly or not, is shown once."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert described(POLICY, one).traceback.count("ValueError: one") == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_a_group_among_its_own_members_ends():
    """So is a group that is the context of its member."""
    member = ValueError("member")
    group = Group("group", [member])
    member.__context__ = group
    assert described(POLICY, group).traceback.count("ExceptionGroup: group") == 1


# --- hostile exceptions -----------------------------------------------------------------------------


class StrRaisesError(Exception):
    def __str__(self) -> str:
        raise RuntimeError(CANARY)


class StrExitsError(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class StrIsOddError(Exception):
    def __str__(self) -> Any:
        return None  # noqa: PLE0307  wrong on purpose


class StrIsSubclassError(Exception):
    def __str__(self) -> str:
        return TextSubclass("odd but text")


class EverythingRaisesError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


class LiesAboutItsChainError(Exception):
    __cause__ = __context__ = __traceback__ = "not what you expect"  # type: ignore[assignment]
    __suppress_context__ = None  # type: ignore[assignment]
    __notes__ = 5


class OddNotesError(Exception):
    def __init__(self) -> None:
        self.__notes__ = [object(), None, "fine\ud800", TextSubclass("a subclass")]


@pytest.mark.parametrize(
    "kind",
    [
        StrRaisesError,
        StrExitsError,
        StrIsOddError,
        StrIsSubclassError,
        EverythingRaisesError,
        LiesAboutItsChainError,
        OddNotesError,
    ],
)
def test_hostile_exceptions_are_described(kind):
    """Whatever their own code does, type and frames are there, and nothing is raised."""
    content = described(POLICY, raised(lambda: (_ for _ in ()).throw(kind())))
    assert content.type == f"test_content_exceptions.{kind.__name__}"
    assert kind.__name__ in content.traceback.splitlines()[-1] or kind is OddNotesError
    assert "in raised" in content.traceback
    assert CANARY not in "".join(content[:3])
    "".join(content[:3]).encode()


def test_an_unreadable_message_says_so():
    """In place of the message stands what its ``__str__`` raised."""
    assert described(POLICY, StrRaisesError()).message == "<message unreadable: RuntimeError>"


def test_notes_of_odd_kinds_are_left_out():
    """Only texts are notes, and they are written as UTF-8."""
    text = described(POLICY, OddNotesError()).traceback
    assert text.splitlines() == [
        "test_content_exceptions.OddNotesError",
        "fine\ufffd",
        "a subclass",
    ]


def test_a_keyboard_interrupt_while_a_message_is_made_is_not_swallowed():
    """Ctrl-C in a slow ``__str__`` still stops the program."""

    class SlowError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        described(POLICY, SlowError())


def test_surrogates_and_nuls_do_not_reach_the_exporter():
    """They lose a whole batch there or in a database behind it."""
    content = described(POLICY, raised(fail, "a\ud800b\0c"))
    assert content.message == "a\ufffdb\ufffdc"
    assert "ValueError: a\ufffdb\ufffdc" in content.traceback


def test_exceptions_without_a_traceback():
    """One that was never raised has only its title."""
    assert described(POLICY, ValueError("x")).traceback == "ValueError: x"


def test_code_without_source_has_frames_without_lines():
    """Frames of `exec` and of deleted files are named."""
    error = raised(lambda: exec(compile("def f():\n    1 / 0\nf()", "<made up>", "exec"), {}))
    assert (
        '  File "<made up>", line 2, in f\nZeroDivisionError' in described(POLICY, error).traceback
    )


@pytest.mark.parametrize(("name", "make"), ZOO, ids=[name for name, _ in ZOO])
def test_any_value_can_be_an_exceptions_argument(name, make):
    """The zoo in exceptions: bounded, UTF-8, and nothing is raised."""
    value = make()
    for error in (
        raised(fail, value),
        KeyError(value, value),
        SystemExit(value),
        OSError(1, value),
    ):
        content = described(SMALL, error)
        assert len(content.message.encode()) <= 1500
        assert len(content.traceback.encode()) <= 1500


# --- secrets ----------------------------------------------------------------------------------------


def source(tmp_path, *lines: str) -> BaseException:
    """The exception of a program whose last line fails."""
    path = tmp_path / "program.py"
    path.write_text("\n".join(lines) + "\n")
    linecache.clearcache()
    return raised(lambda: exec(compile(path.read_text(), str(path), "exec"), {}))


def test_messages_causes_contexts_and_notes_are_searched():
    """A secret is hidden in each text of the chain."""

    def several() -> None:
        try:
            try:
                fail(f"password={CANARY}")
            except ValueError as error:
                raise KeyError(f'{{"api_key": "{CANARY}"}}') from error
        except KeyError:
            error = RuntimeError(f"Authorization: Bearer {CANARY}")
            error.__notes__ = [f"token: {CANARY}"]
            raise error  # noqa: B904  the context is meant

    content = described(POLICY, raised(several))
    assert CANARY not in "".join(content[:3])
    for title in (
        "ValueError: password=",
        "KeyError: '{",
        "RuntimeError: Authorization: ",
        "\ntoken: ",
    ):
        assert title in content.traceback
    assert content.message == f"Authorization: {MARKER}"


@pytest.mark.parametrize(
    "lines",
    [
        [f"password = '{CANARY}'; 1 / 0"],
        [f"token = '{CANARY}' + 1"],
        [f"connect = lambda **k: 1 / 0; connect(api_key='{CANARY}')"],
        [f"secret = ('{CANARY}'", "    + 1)"],
        ["connect = int", "connect(", "    password=", f"    '{CANARY}' + 1,", ")"],
        ["def f(x, password:", f"    str = '{CANARY}', y=1 / 0): pass"],
        [f"d = {{'password': '{CANARY}', 'x': 1 / 0}}"],
        [f"password, user = '{CANARY}', 1 / 0"] if False else [f"password = f('{CANARY}', 1)"],
        [f"x = 'sk-{CANARY}abcdefgh' + 1"],
        [f"url = 'https://u:{CANARY}@host' + 1"],
    ],
)
def test_secrets_in_source_lines_are_hidden(tmp_path, lines):
    """A literal that is assigned to a secret's name does not show, on one line or several."""
    content = described(POLICY, source(tmp_path, *lines))
    assert "program.py" in content.traceback
    assert CANARY not in content.traceback


def test_other_source_lines_stay(tmp_path):
    """Lines without secrets are shown, also below one with a secret."""
    content = described(POLICY, source(tmp_path, f"password = '{CANARY}'", "max_tokens = 5; 1 / 0"))
    assert "    max_tokens = 5; 1 / 0" in content.traceback


def test_a_changed_file_is_read_again(tmp_path):
    """Source lines come from the file as it is now, like in Python's own traceback."""
    assert "1 / 0" in described(POLICY, source(tmp_path, "1 / 0")).traceback
    path = tmp_path / "program.py"
    path.write_text("x = 1; y = x / 0  # changed\n")
    error = raised(lambda: exec(compile(path.read_text(), str(path), "exec"), {}))
    assert "# changed" in described(POLICY, error).traceback


def test_types_tells_types_and_frames_only():
    """``types`` has no message, no note and no source line, but shows where it failed."""
    error = raised(with_cause)
    error.__notes__ = [CANARY]
    content = described(ContentPolicy(exceptions="types"), error)
    assert content.message == ""
    assert content.type == "KeyError"
    lines = content.traceback.splitlines()
    assert [line.partition(", line")[0] for line in lines] == [
        "Traceback (most recent call last):",
        f'  File "{__file__}"',
        f'  File "{__file__}"',
        "ValueError",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        f'  File "{__file__}"',
        f'  File "{__file__}"',
        "KeyError",
    ]


def test_off_tells_the_type_only():
    """``off`` leaves the class, which is in ``error.type`` anyway."""
    content = described(ContentPolicy(exceptions="off"), raised(with_cause))
    assert content == ("KeyError", "", "")


def test_the_redactor_is_asked_about_messages_and_the_traceback():
    """The user's function sees both, and its failure hides both."""

    def mask(path, value):
        return value.replace("Alice", "<name>") if path.startswith("exception.") else value

    content = described(ContentPolicy(redactor=mask), raised(fail, "Alice was here"))
    assert content.message == "<name> was here"
    assert "Alice" not in content.traceback

    def broken(path, value):
        raise OSError(value)

    content = described(ContentPolicy(redactor=broken), raised(fail, "Alice was here"))
    assert (content.message, content.traceback) == (MARKER, MARKER)


def test_the_redactor_is_asked_about_both_ends_of_a_long_message():
    """It gets texts, and what it hides at the cut does not show in part."""

    def mask(path, value):
        return value.replace("alice@example.com", "<the mail>")

    policy = ContentPolicy(redactor=mask, max_attribute_bytes=300)
    for before in range(250, 320, 3):
        text = "x " * (before // 2) + "alice@example.com " + "y " * 5000
        message = described(policy, ValueError(text)).message
        assert message.startswith("x x ")
        assert message.endswith(" y ")
        assert "alice" not in message


# --- what was captured or recorded ------------------------------------------------------------------


def test_no_frame_is_kept_alive():
    """What is captured holds texts only."""

    class Held:
        pass

    def hold() -> None:
        held = Held()
        kept.append(weakref.ref(held))
        raise ValueError("bad")

    kept: list[weakref.ref] = []
    error = raised(hold)
    texts = capture_exception(error, 1000)
    error = None
    gc.collect()
    assert kept[0]() is None
    assert all(type(text) is str for text in texts)


def test_messages_have_a_budget_of_time(monkeypatch):
    """A chain of exceptions whose ``__str__`` takes long is still named."""
    now = [0.0]
    monkeypatch.setattr("burr_otel.content.exceptions.monotonic", lambda: now[0])

    class SlowError(Exception):
        def __str__(self) -> str:
            now[0] += 1
            return "took a second"

    error = SlowError()
    error.__cause__ = SlowError()
    error.__cause__.__cause__ = SlowError()
    texts = capture_exception(error, 1000)
    assert texts.message == "took a second"
    assert texts.traceback.count("SlowError: took a second") == 1
    assert texts.traceback.count("SlowError: <message not read: there was no time>") == 2
    assert now == [1.0]


@pytest.mark.parametrize("length", [1000, 4000, 100_000])
@pytest.mark.parametrize("secret", [f"password={CANARY}", "sk-proj-" + "a1B2c3D4" * 5])
def test_a_secret_at_the_cut_of_a_message_shows_nothing_of_itself(length, secret):
    """Wherever the message was cut when it was captured."""
    for at in range(0, length, max(length // 60, 1)):
        text = "lorem ipsum " * (length // 12)
        content = described(SMALL, ValueError(f"{text[:at]} {secret} {text[at:]}"))
        shown = content.message + content.traceback
        assert CANARY[:6] not in shown
        assert "a1B2" not in shown
        assert len(content.message.encode()) <= 1500


def test_types_shows_nothing_of_a_message_that_looks_like_a_traceback():
    """Not even when it quotes one, as errors from other processes do."""
    lines = (
        "Traceback (most recent call last):",
        f'  File "{CANARY}", line 1, in {CANARY}',
        f"    {CANARY}",
        f"{CANARY}: {CANARY}",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        f"    | {CANARY}",
        f"  +---------------- {CANARY} ----------------",
    )
    for message in ("\n".join(lines), "first\n" + "\n".join(lines)):
        error = raised(fail, message)
        error.__notes__ = ["\n".join(lines)]
        content = described(ContentPolicy(exceptions="types"), error)
        assert CANARY not in "".join(content[:3])
        assert content.traceback.splitlines()[-1] == "ValueError"
        full = described(POLICY, error).traceback
        assert full.count(f'File "{CANARY}"') == 2


def test_a_recorded_traceback_is_told_like_a_captured_one():
    """Type, message and frames of what Python's own module wrote."""
    error = raised(with_cause)
    recorded = raised_of_text("".join(traceback.format_exception(error)))
    captured = capture_exception(error, 16_384)
    assert recorded[:2] == captured[:2] == ("KeyError", "'second'")
    for policy in (POLICY, ContentPolicy(exceptions="off")):
        shown = policy.exception(recorded)
        assert shown[:2] == policy.exception(captured)[:2]
    assert 'raise KeyError("second") from error' in POLICY.exception(recorded).traceback
    types = ContentPolicy(exceptions="types").exception(recorded)
    assert types.message == ""
    assert "second" not in types.traceback
    assert types.traceback.splitlines()[-1] == "KeyError"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("ValueError: bad\nworse", "ValueError", "bad\nworse"),
        ("mod.Error", "mod.Error", ""),
        ("no traceback at all", "Exception", "no traceback at all"),
        ("", "Exception", ""),
        ("Traceback (most recent call last):", "Exception", ""),
        (
            'Traceback (most recent call last):\n  File "x", line 1, in f\n    1/0\nE: a: b',
            "E",
            "a: b",
        ),
    ],
)
def test_what_was_recorded_may_be_anything(text, kind, message):
    """Old logs hold what their writers put there."""
    assert raised_of_text(text)[:2] == (kind, message)
    POLICY.exception(raised_of_text(text))


def test_secrets_in_a_recorded_traceback_are_hidden():
    """In its messages and its source lines."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n'
        f"    connect(password='{CANARY}')\n"
        "            ~~~~~~~~^^^\n"
        f"ValueError: token: {CANARY}"
    )
    content = POLICY.exception(raised_of_text(text))
    assert CANARY not in "".join(content[:3])
    assert content.message == f"token: {MARKER}"


# --- cuts ---------------------------------------------------------------------------------------


def test_of_several_long_texts_of_one_exception_no_cut_shows_a_part_of_a_secret():
    """A message and its notes stand one below the other; each cut falls into a long token."""
    token = "eyJ" + "a1B2" * 150 + "." + "a1B2" * 600 + "." + "a1B2" * 60
    for before in (1_700, 4_086, 9_000):
        error = ValueError("word " * (before // 5) + token + " word" * 1_000)
        error.__notes__ = ["a short note", "word " * 300 + token, "word " * 900 + token]
        for limit in (1_000, 4_000, 16_000):
            policy = ContentPolicy(max_attribute_bytes=limit)
            shown = policy.exception(capture_exception(raised(_raise, error), limit))
            assert "a1B2" not in shown.message + shown.traceback


def test_a_message_that_speaks_of_a_cut_is_not_taken_for_a_cut_one():
    """It may quote what a span showed: nothing of it is left out, and its own cut counts."""
    quoted = "x" * 2_000 + " ... [5 more characters] ... " + "y " * 1_000
    shown = POLICY.exception(capture_exception(ValueError(quoted + "the end"), 16_000))
    assert shown.message == quoted.replace("[5", "(5").replace("rs]", "rs)") + "the end"
    token = "eyJ" + "a1B2" * 150 + "." + "a1B2" * 600 + "." + "a1B2" * 60
    text = quoted + "word " * 300 + token + " word" * 5_000
    shown = ContentPolicy(max_attribute_bytes=6_000).exception(
        capture_exception(ValueError(text), 6_000)
    )
    assert "a1B2" not in shown.message


@pytest.mark.parametrize("before", range(100, 180, 5))
def test_a_long_source_line_is_cut_after_its_secrets_are_hidden(before, tmp_path):
    """Half a token is not known to be one."""
    token = "sk-ant-api03-" + "a1B2c3D4" * 5
    file = tmp_path / "source.py"
    file.write_text(f"raise ValueError('short', '{'x' * before} {token} {'y' * 300}'[:0])\n")
    error = raised(exec, compile(file.read_text(), str(file), "exec"))
    shown = POLICY.exception(capture_exception(error, 16_000)).traceback
    assert "source.py" in shown
    assert "raise ValueError" in shown
    assert "sk-ant" not in shown
    assert "c3D4" not in shown


def _raise(error: BaseException) -> None:
    raise error
