"""The rooms of the package, and that imports between them run one way."""

import ast
import sys
from pathlib import Path

import burr_otel

PACKAGE = Path(burr_otel.__file__).parent
# What a room may import of ours. A room not listed here is a new room: give it a line.
ALLOWED = {
    "_version": set(),
    "cached": set(),
    "printable": set(),
    "errors": {"printable"},
    "forks": set(),
    "interrupts": set(),
    "semconv": set(),
    "trace_url": {"errors"},
    "config": {"errors", "printable", "trace_url"},
    "content": {"cached", "interrupts", "records"},
    "records": set(),
    "store": {"cached", "errors", "forks", "interrupts", "printable", "records"},
    "spans": {
        *("_version", "config", "content", "errors", "forks", "interrupts", "printable"),
        *("records", "semconv"),
    },
    "history": {"config", "content", "errors", "records", "semconv", "spans", "store"},
    "view": {"config", "content", "errors", "history", "records", "semconv", "spans", "store"},
    "replay": {
        *("_version", "config", "content", "errors", "history", "records", "semconv", "spans"),
        *("store", "view"),
    },
    "recover": {"config", "content", "history", "records", "replay", "semconv", "spans", "store"},
    "live": {
        *("cached", "config", "content", "errors", "forks", "printable", "records", "recover"),
        *("semconv", "spans", "store"),
    },
    "loader": {"config", "errors", "store"},
    "hooks": {"config", "errors", "interrupts", "live", "spans", "store"},
    "tracker": {
        *("config", "errors", "forks", "hooks", "live", "loader", "records", "recover", "spans"),
        *("store", "trace_url"),
        "view",  # only when a run is looked at
    },
    "instrumentor": {"config", "tracker"},
    "ui": {"config", "errors", "records", "store", "trace_url"},
    "testing": {"semconv", "spans", "store"},
    "demo": set(),
    "check": {"_version", "config", "content", "errors", "records", "semconv", "spans", "store"},
    "cli": {
        *("_version", "check", "config", "demo", "errors", "history", "records", "replay", "spans"),
        *("store", "testing", "trace_url", "tracker", "view"),
    },
    "__init__": {"_version", "config", "errors", "live", "spans", "tracker"},
}
# Where names come from that are imported from the package itself.
HOME = {"__version__": "_version", "OtelTracker": "tracker", "OtelConfig": "config"}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "burr_otel":
                names = [f"burr_otel.{HOME.get(alias.name, alias.name)}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "burr_otel" and len(parts) > 1:
                yield parts[1]


def test_imports_run_one_way():
    """No room imports from a room above it."""
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for path in PACKAGE.rglob("*.py")
        for room in imported_rooms(path)
        if room != room_of(path) and room not in ALLOWED[room_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_classes_have_one_name():
    """A name can be found with grep."""
    names = [
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(names) == sorted(set(names))


def test_the_store_knows_no_opentelemetry():
    """The store can be read where no SDK is wanted."""
    text = "".join(path.read_text() for path in (PACKAGE / "store").rglob("*.py"))
    assert "import opentelemetry" not in text
    assert "from opentelemetry" not in text


def test_all_is_sorted_and_complete():
    """`__all__` of the package is sorted, and every name in it is there."""
    assert burr_otel.__all__ == sorted(burr_otel.__all__)
    assert all(hasattr(burr_otel, name) for name in burr_otel.__all__)


def test_the_package_says_that_it_is_typed():
    """`py.typed` is shipped."""
    assert (PACKAGE / "py.typed").exists()


def test_every_module_says_what_it_is():
    """Every module has a docstring."""
    bare = [p for p in PACKAGE.rglob("*.py") if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not bare


def test_properties_that_are_worked_out_once_are_our_own():
    """Those of `functools` have a lock before Python 3.12, see `burr_otel.cached`."""
    users = [p.name for p in PACKAGE.rglob("*.py") if "cached_property" in p.read_text()]
    assert users == ["cached.py"]


def test_only_config_reads_our_variables():
    """`BURR_OTEL_*` variables are read in one place."""
    readers = [
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if 'environ.get("BURR_OTEL_' in p.read_text() or 'environ["BURR_OTEL_' in p.read_text()
    ]
    assert readers == []


def test_python_is_one_that_we_support():
    """The suite runs on what pyproject promises."""
    assert sys.version_info[:2] >= (3, 10)
