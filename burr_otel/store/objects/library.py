"""The obstore library, also in a forked process, where its own threads are gone."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from typing import Any

_installed: Any = importlib.import_module("obstore._obstore")  # an extra
_library: Any = _installed  # None: to be loaded anew, in a forked child


def library() -> Any:
    """The functions and classes of obstore."""
    global _library
    if _library is None:
        _library = _separate(_installed)
    return _library


def keep_forever(thing: object) -> None:
    """Never free what belongs to the parent: its connections would close in the parent too."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _separate(module: Any) -> Any:
    """Load the library again, with a runtime of its own.

    Tokio does not work in a forked child (tokio issue 4301): calls hang or crash, and disturb the
    parent, whose epoll descriptor the child shares. The system loads a file of another name anew.
    """
    names = [name for name in sys.modules if name.partition(".")[0] == "obstore"]
    loaded = {name: sys.modules[name] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(module.__file__, folder)
        spec = importlib.util.spec_from_file_location("_obstore", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded")
        separate = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(separate)
    sys.modules.update(loaded)  # it has put its own parts there
    return separate


def _after_fork_in_child() -> None:
    global _library
    if _library is not None:
        keep_forever(_library)
    _library = None


os.register_at_fork(after_in_child=_after_fork_in_child)
