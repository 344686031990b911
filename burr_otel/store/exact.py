"""Values that JSON cannot carry: how a record keeps them beside a harmless stand-in.

A record holds strict JSON that every reader can parse. Where that loses something (NaN, a lone
surrogate, a tuple, an integer key, a user's dict that carries Burr's serde key), the record also
holds a patch ``[path, kind, payload]``. `restore` puts the exact value back at the path.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import importlib
import sys
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from burr_otel.printable import logger

# Kinds of patches. Renamed keys of the user's own dicts come back only after Burr has
# deserialized the state, so that a user's "__burr_serde__" never reaches its dispatcher. Objects
# that Burr would keep as text come back then, too.
KEYS: Final = "keys"
USER_KEYS: Final = "user_keys"
OBJECT: Final = "object"

_MAX_DEPTH: Final = 50
_ATOMS: Final = (bytes, str, int, float, bool, type(None))
_CONTAINERS: Final[dict[str, Callable[[Any], Any]]] = {
    kind.__name__: kind for kind in (tuple, list, set, frozenset, dict)
}
_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "bool": bool,
    "float": float.fromhex,
    "bytes": base64.b64decode,
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
}


class MissingClassError(Exception):
    """A class that a stored value names cannot be imported."""


def class_name(kind: type) -> str:
    """Module and qualified name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def is_after(patch: Any) -> bool:
    """Whether a patch is for the time after Burr's deserialization."""
    return isinstance(patch, list) and len(patch) == 3 and patch[1] in (USER_KEYS, OBJECT)  # noqa: PLR2004


def encode_atom(value: Any) -> list[Any] | None:  # noqa: PLR0911 - one case each
    """One scalar (or tuple of them) as ``[kind, payload]`` in strict JSON; None: cannot."""
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


def encode_object(value: Any, depth: int = 0) -> list[Any] | None:  # noqa: PLR0911 - one case each
    """A value that comes back equal, of those that Burr would keep as text; None: it cannot."""
    kind, name = type(value), type(value).__name__.lower()
    if depth > _MAX_DEPTH:
        return None
    if kind is _CONTAINERS.get(name):
        members = value.items() if kind is dict else value
        items = [encode_object(item, depth + 1) for item in members]
        return None if None in items else [name, items]
    if isinstance(value, enum.Enum):
        return _encode_enum(value)
    if kind in (dt.datetime, dt.date, dt.time):
        return [name, value.isoformat()]
    if kind is dt.timedelta:
        return [name, [value.days, value.seconds, value.microseconds]]
    if kind in (decimal.Decimal, uuid.UUID):
        return [name, str(value)]
    if kind is complex:
        return [name, [value.real.hex(), value.imag.hex()]]
    return encode_atom(value) if kind in _ATOMS else None


def _encode_enum(value: enum.Enum) -> list[Any] | None:
    kind = type(value)
    try:
        known = _find(kind.__module__, kind.__qualname__, imports=False) is kind
    except MissingClassError:
        known = False
    if not known or kind.__members__.get(value.name) is not value:
        return None
    return ["enum", [kind.__module__, kind.__qualname__, value.name]]


def decode_atom(kind: str, payload: Any) -> Any:  # noqa: PLR0911 - one case each
    """Read what `encode_atom` or `encode_object` wrote."""
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](decode_atom(*item) for item in payload)
    if kind in _READERS:
        return _READERS[kind](payload)
    if kind == "null":
        return None
    if kind == "int":
        return int(payload, 16)
    if kind == "str":
        return base64.b64decode(payload).decode("utf-8", "surrogatepass")
    if kind == "complex":
        return complex(*map(float.fromhex, payload))
    if kind == "timedelta":
        return dt.timedelta(*payload)
    if kind == "enum":
        return _decode_enum(*payload)
    raise ValueError(f"unknown kind of exact value {kind!r}")


def _decode_enum(module: str, name: str, member: str) -> enum.Enum:
    found = _find(module, name, imports=True)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)):
        raise MissingClassError(f"{module}.{name} is no enumeration")
    if member not in found.__members__:
        raise MissingClassError(f"{module}.{name} has no member {member!r}")
    return found[member]


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
                atom = payload if kind == OBJECT else (kind, payload)
                _walk(document, path[:-1])[path[-1]] = decode_atom(*atom)
        except MissingClassError:  # noqa: PERF203 - each on its own
            raise
        except Exception as error:  # a damaged patch may be anything
            logger.warning(
                "a stored value keeps its stand-in, because its exact form cannot be read (%s): "
                "%.200r",
                error,
                patch,
            )


def _find(module: str, name: str, *, imports: bool) -> Any:
    try:
        found: Any = importlib.import_module(module) if imports else sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise MissingClassError(f"{module}.{name} cannot be imported: {error}") from error
    return found


def _walk(node: Any, path: list[Any]) -> Any:
    for step in path:
        node = node[step]
    return node


def _rename(node: dict[Any, Any], names: list[Any]) -> None:
    original = {stand_in: decode_atom(kind, payload) for stand_in, kind, payload in names}
    items = [(original.get(key, key), value) for key, value in node.items()]
    node.clear()
    node.update(items)
