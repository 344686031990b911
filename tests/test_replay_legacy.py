"""Runs that were recorded before spans were derived from records: replayed as they were sent."""

import gzip
import json
from pathlib import Path

import pytest
from replay_support import stored_runs, told

from burr_otel.content import ContentPolicy
from burr_otel.spans.facts import portable

FILE = Path(__file__).parent / "data" / "legacy_runs.json.gz"
RUNS = json.loads(gzip.decompress(FILE.read_bytes()))
"""By what was run: the files that were written, and what was sent live, by the last release of the
old way (see the history of this file's first commit)."""


def written(folder, name):
    for path, text in RUNS[name]["files"].items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def as_kept(span):
    """A span as the file keeps it."""
    each = told(span)
    return {
        **each,
        "kind": each["kind"].name,
        "ids": [*each["ids"][:3], each["ids"][3].to_header()],
        "parent": each["parent"] and list(each["parent"]),
        "attributes": {key: portable(value) for key, (_, value) in each["attributes"].items()},
        "events": [[name, portable(said), at] for name, said, at in each["events"]],
        "links": [[*link[:3], portable(link[3])] for link in each["links"]],
        "status": [each["status"][0].name, each["status"][1]],
        "times": list(each["times"]),
        "resource": portable(each["resource"]),
        "scope": list(each["scope"]),
    }


def by_id(spans):
    found = {span["ids"][1]: span for span in spans}
    assert len(found) == len(spans)
    return found


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    "reader",
    [ContentPolicy(), ContentPolicy(redact=False, max_attribute_bytes=1_000_000)],
    ids=["default", "open"],
)
def test_it_comes_back_as_it_was_sent(name, reader, tmp_path):
    """Ids, times, attributes, events, links and status, whatever the reader's settings are.

    But of a killed process nobody kept what it showed of attributes that it had logged.
    """
    if name == "killed" and not reader.redact:
        pytest.skip("shown by the reader's settings")
    sent = by_id(RUNS[name]["spans"])
    runs = list(stored_runs(written(tmp_path, name), policy=reader))
    replayed = by_id([as_kept(span) for run in runs for span in run])
    assert replayed.keys() == sent.keys()
    for key, each in sent.items():
        assert replayed[key] == each
    assert all(run.damaged == 0 for run in runs)


def test_a_damaged_keeping_is_described_anew(tmp_path):
    """Of what a span said at its end nothing can be read: the record itself tells the rest."""
    written(tmp_path, "scenario run")
    path = tmp_path / "proj" / "a1" / "log.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["type"] == "end_entry":
            record["otel"]["attributes"] = {"x": {"telepathy": 1}}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    [run] = stored_runs(tmp_path)
    spans = list(run)
    assert [span.name for span in spans] == ["count"] * 3 + ["finish", "invoke_workflow proj"]
    assert run.damaged == 4
    assert spans[3].attributes["burr.result"] == '{"answer":30}'
