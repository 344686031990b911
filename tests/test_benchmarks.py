"""The benchmarks measure what they say."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _import_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def machine():
    return {
        "at": "2026-01-01",
        "commit": "abc",
        "python": "3",
        "system": "Linux",
        "load_average": 0.1,
        "packages": {"burr-otel": "1"},
    }


def test_a_step_is_measured_with_its_spans_encoded_and_its_snapshot_on_disk(tmp_path):
    """A fresh process reports both times, spans with all attributes, and what was written."""
    import run

    found = run.measured("steps", "ours", str(tmp_path), {"shape": "1kb", "steps": 30})
    assert 0 < found["own_us"] <= found["all_us"]
    assert 0.9 < found["spans"] < 1.1
    assert found["span_bytes"] > 1_000  # the state alone is that long
    assert found["disk_bytes"] > 1_000


def test_a_failed_measurement_ends_the_run_and_says_why(tmp_path):
    """No table is made of what could not be measured."""
    import run

    with pytest.raises(SystemExit, match=r"steps ours failed:(.|\n)*KeyError: 'gigantic'"):
        run.measured("steps", "ours", str(tmp_path), {"shape": "gigantic", "steps": 1})


def test_a_ratio_is_of_what_was_added_to_a_run_without_a_tracker():
    """Medians of differences within a round, on both columns; a goal needs both."""
    import report

    def rounds(own, whole):
        pairs = zip(own, whole, strict=True)
        return [{"own_us": mine, "all_us": everyones} for mine, everyones in pairs]

    found = {
        "none": rounds([100, 200, 100], [100, 200, 100]),
        "ltc": rounds([300, 400, 900], [300, 400, 900]),
        "ours": rounds([120, 220, 130], [150, 250, 190]),
    }
    table = report.goals_table({"100kb": {"rounds": found, "machine": machine()}})
    (line,) = [line for line in table.splitlines() if "100 KB" in line]
    assert "20 µs / 200 µs = **0.10** | ≤ 0.2" in line
    assert "50 µs / 200 µs = **0.25** | ≤ 0.35 | met" in line
    found["ours"] = rounds([120, 220, 130], [200, 300, 200])
    assert "**missed**" in report.goals_table({"100kb": {"rounds": found, "machine": machine()}})


def test_a_peer_that_was_not_measured_meets_no_goal():
    """Without langfuse its goal is neither met nor missed."""
    import report

    found = {
        name: [{"own_us": us, "all_us": us}]
        for us, name in enumerate(("none", "ours", "ltc", "ltc+bridge"))
    }
    table = report.goals_table({"1kb": {"rounds": found, "machine": machine()}})
    (line,) = [line for line in table.splitlines() if "Langfuse" in line]
    assert "not measured" in line
    assert "met |" not in line
    assert "missed" not in line


def test_each_part_has_its_own_time_and_a_name_that_is_gone_is_told(monkeypatch):
    """A part's time is without that of the parts it calls; the rest stays with the caller."""
    import parts

    clock = iter(range(0, 10**9, 1_000))
    monkeypatch.setattr(parts.time, "perf_counter_ns", lambda: next(clock))
    module = type(sys)("measured_module")
    exec("def inner(): pass\ndef outer(): inner(); inner()", vars(module))
    monkeypatch.setitem(sys.modules, "measured_module", module)
    monkeypatch.setattr(
        parts,
        "PARTS",
        {
            "outer": ("measured_module:outer", "measured_module:gone", "no_such_module:f"),
            "inner": ("measured_module:inner",),
        },
    )
    recorder = parts.Recorder()
    recorder._inside_ns = recorder._outside_ns = 0
    recorder.start()
    for _ in range(8):
        recorder.pre_run_step()
        module.outer()
    found = recorder.finish(module.inner)
    # Each look at the clock takes 1 µs: one in each inner call, and three in the outer one around them.
    assert found["own"] == {"outer": (1, 3), "inner": (2, 2)}
    assert found["export"] == {"inner": (1 / 8, 1 / 8)}
    assert found["missing"] == ["measured_module:gone", "no_such_module:f"]


def test_the_page_has_all_tables_and_says_when_nothing_is_measured():
    """Every marker of the template is replaced."""
    import report

    page = report.page({})
    assert "Nothing is measured yet" in page
    assert "<!--" not in page
    assert page.count("not measured") >= len(report.GOALS)
