"""Values of numpy, pandas and tensor libraries, looked at only when those have made them.

Nothing is imported here. A large array costs no more than its first values; the values of a tensor
are never read, they may live on a device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from burr_otel.content.forms import titled

_HEAD_ITEMS: Final = 8
_HEAD_COLUMNS: Final = 24


def foreign_form(value: Any) -> Any:
    """The form of a value of a known library, or ``None``; raises what the value's code raises."""
    module = type(value).__module__
    reader = _READERS.get(module.partition(".")[0]) if type(module) is str else None
    return None if reader is None else reader(value)


def _numpy(value: Any) -> Any:
    numpy = sys.modules["numpy"]
    if not isinstance(value, numpy.generic | numpy.ndarray):
        return None
    names = value.dtype.names
    if isinstance(value, numpy.void) and names is not None:
        return _record(value.dtype, value.tolist())
    if isinstance(value, numpy.ndarray) and (names is not None or value.ndim):
        head = numpy.ndarray.flat.__get__(value)[:_HEAD_ITEMS].tolist()
        if names is not None:  # below the names of the fields, as a data frame
            head = [_record(value.dtype, record) for record in head]
        about = {"dtype": str(value.dtype), "shape": list(value.shape), "head": head}
        return titled("ndarray", about)
    item = str(value) if value.dtype.kind in "mM" else value.item()
    if type(item) in (bool, int, float, str, bytes):
        return item
    return None if isinstance(item, numpy.generic | tuple) else str(item)


def _record(dtype: Any, values: tuple[Any, ...]) -> dict[str, Any]:
    """A record of a structured array by the names of its fields."""
    return {
        name: value if dtype[name].names is None else _record(dtype[name], value)
        for name, value in zip(dtype.names, values, strict=True)
    }


def _pandas(value: Any) -> Any:
    pandas = sys.modules["pandas"]
    if isinstance(value, pandas.DataFrame):
        rows = value.iloc[:_HEAD_ITEMS, :_HEAD_COLUMNS]
        head = [_row(rows.columns, row) for row in rows.itertuples(index=False)]
        return titled("DataFrame", {"shape": list(value.shape), "head": head})
    if isinstance(value, pandas.Series):
        # Below its own name, so that a column of passwords is hidden like a key of that name.
        name = value.name if isinstance(value.name, str) else "head"
        some = value.iloc[:_HEAD_ITEMS]
        labels, cells = some.index.tolist(), some.tolist()
        # A row of a data frame has the names of the columns for its index.
        shown = _row(labels, cells) if any(isinstance(one, str) for one in labels) else cells
        return titled("Series", {"dtype": str(value.dtype), "size": len(value), name: shown})
    return None


def _row(columns: Any, cells: Any) -> dict[Any, Any]:
    """The cells of a row by column; columns of one name stay apart."""
    row: dict[Any, Any] = {}
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        row[f"{column} (column {number})" if column in row else column] = cell
    return row


def _tensor(value: Any) -> Any:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return None
    return f"<{type(value).__qualname__} {dtype} {list(shape)}>"


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    **dict.fromkeys(("torch", "jax", "jaxlib", "tensorflow", "cupy"), _tensor),
}
