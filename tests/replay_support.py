"""Stored runs as spans, and spans as values that compare."""

from opentelemetry.sdk.resources import Resource

from burr_otel import semconv
from burr_otel.content import ContentPolicy
from burr_otel.replay.read import Relatives, RunSpans
from burr_otel.store import Store


def dead(fields, last_ns):
    """Says of every writer that it is gone."""
    return False


def stored_spans(folder, project="proj", *, app_ids=None, alive=dead, policy=None, **more):
    """The spans of stored runs, of all when `app_ids` is not given."""
    found = []
    for spans in stored_runs(folder, project, app_ids=app_ids, alive=alive, policy=policy, **more):
        found += spans
    return found


def stored_runs(folder, project="proj", *, app_ids=None, alive=dead, policy=None, **more):
    """The readers of stored runs."""
    store = Store(project, folder)
    relatives = Relatives(store)
    for app_id in app_ids or store.list_app_ids():
        yield RunSpans(
            store.read(app_id),
            policy=policy or ContentPolicy(),
            relatives=relatives,
            alive=alive,
            resource=more.get("resource") or Resource.get_empty(),
        )


def ours(spans):
    """Those that burr-otel made."""
    return [span for span in spans if span.instrumentation_scope.name == semconv.SCOPE_NAME]


def told(span):
    """Everything that an exporter sends of a span."""
    context = span.context
    scope = span.instrumentation_scope
    return {
        "name": span.name,
        "ids": (context.trace_id, context.span_id, int(context.trace_flags), context.trace_state),
        "parent": span.parent
        and (span.parent.trace_id, span.parent.span_id, span.parent.is_remote),
        "kind": span.kind,
        "attributes": {key: (type(value), value) for key, value in span.attributes.items()},
        "events": [(e.name, dict(e.attributes), e.timestamp) for e in span.events],
        "links": [
            (k.context.trace_id, k.context.span_id, k.context.is_remote, dict(k.attributes))
            for k in span.links
        ],
        "status": (span.status.status_code, span.status.description),
        "times": (span.start_time, span.end_time),
        "resource": dict(span.resource.attributes),
        "scope": (scope.name, scope.version, scope.schema_url),
    }


def by_id(spans):
    """What spans tell, by their ids, each of which there must be once."""
    found = {span.context.span_id: told(span) for span in spans}
    assert len(found) == len(spans)
    return found


def assert_same(live, replayed):
    """Compare span by span, so that a failure names what differs."""
    live, replayed = by_id(live), by_id(replayed)
    names = {key: each["name"] for key, each in {**live, **replayed}.items()}
    assert {names[key] for key in live.keys() ^ replayed.keys()} == set()
    for key, each in live.items():
        other = replayed[key]
        differing = {part: (each[part], other[part]) for part in each if each[part] != other[part]}
        assert not differing, f"{names[key]}: live and replayed differ in {differing}"
