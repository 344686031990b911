"""Values that JSON cannot carry: how a record keeps them beside a harmless stand-in.

A record holds strict JSON that every reader can parse. Where that loses something (NaN, a lone
surrogate, an integer key, a user's dict that carries Burr's serde key), the record also holds a
patch ``[path, kind, payload]``. `restore` puts the exact value back at the path.
"""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KEYS", "USER_KEYS", "decode_atom", "encode_atom", "is_after", "restore"]

logger = logging.getLogger(__name__)

# Kinds of patches. Renamed keys of the user's own dicts come back only after Burr has
# deserialised the state, so that a user's "__burr_serde__" never reaches its dispatcher.
KEYS = "keys"
USER_KEYS = "user_keys"


def is_after(patch: Any) -> bool:
    """Whether a patch is for the time after Burr's deserialisation."""
    return isinstance(patch, list) and len(patch) == 3 and patch[1] == USER_KEYS  # noqa: PLR2004


def encode_atom(value: Any) -> list[Any] | None:  # noqa: PLR0911 - one case each
    """Write one scalar (or tuple of them) as ``[kind, payload]`` in strict JSON; None: cannot."""
    if value is None:
        return ["null", None]
    if isinstance(value, bool):
        return ["bool", bool(value)]
    if isinstance(value, int):
        return ["int", hex(value)]
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return ["str", base64.b64encode(raw).decode()]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if type(value) is tuple:
        items = [encode_atom(item) for item in value]
        return None if None in items else ["tuple", items]
    return None


def decode_atom(kind: str, payload: Any) -> Any:
    """Read what `encode_atom` wrote.

    Raises:
        ValueError: An unknown kind, written by a later version.
    """
    if kind in ("null", "bool"):
        return payload
    if kind == "int":
        return int(payload, 16)
    if kind == "float":
        return float.fromhex(payload)
    if kind == "str":
        return base64.b64decode(payload).decode("utf-8", "surrogatepass")
    if kind == "bytes":
        return base64.b64decode(payload)
    if kind == "tuple":
        return tuple(decode_atom(*item) for item in payload)
    raise ValueError(f"unknown kind of exact value {kind!r}")


def restore(document: dict[Any, Any], patches: Iterable[Any]) -> None:
    """Apply patches to `document` in place, in the order in which they were written.

    A patch that does not fit (a record written by a later version, or damaged) is reported and
    leaves its stand-in where it is.
    """
    for patch in patches:
        try:
            path, kind, payload = patch
            if kind in (KEYS, USER_KEYS):
                _rename(_walk(document, path), payload)
            else:
                _walk(document, path[:-1])[path[-1]] = decode_atom(kind, payload)
        except (ValueError, TypeError, LookupError) as error:  # noqa: PERF203 - each on its own
            logger.warning(
                "a stored value keeps its stand-in, because its exact form cannot be read (%s): %r",
                error,
                patch,
            )


def _walk(node: Any, path: list[Any]) -> Any:
    for step in path:
        node = node[step]
    return node


def _rename(node: dict[Any, Any], names: list[Any]) -> None:
    original = {stand_in: decode_atom(kind, payload) for stand_in, kind, payload in names}
    items = [(original.get(key, key), value) for key, value in node.items()]
    node.clear()
    node.update(items)
