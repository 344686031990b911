"""Running code that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Failure", "call_safely"]


class Failure(NamedTuple):
    """What was raised in place of a result."""

    error: BaseException


def call_safely(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function that may raise anything.

    Returns:
        Its result, or a `Failure`.

    Raises:
        KeyboardInterrupt: Someone pressed Ctrl-C meanwhile; that is not ours to swallow.
    """
    try:
        return function(*arguments, **named)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a SystemExit of a __repr__ must not end the step
        return Failure(error)
