"""Sending stored spans: at the pace of the endpoint, none dropped, each refusal reported."""

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from replay_support import stored_runs

from burr_otel import OtelTracker
from burr_otel.replay import send
from burr_otel.replay.send import Job, Sender, SendingStoppedError
from burr_otel.testing import capture_spans, manual_roots

AWAY = "Failed to export traces to localhost:4317, error code: StatusCode.UNAVAILABLE"
BUSY = "Failed to export spans batch due to timeout, max retries or shutdown."
TOO_LARGE = "error code: StatusCode.RESOURCE_EXHAUSTED, error details: message larger than max"
INVALID = "error code: StatusCode.INVALID_ARGUMENT, error details: bad name"
FORBIDDEN = "Failed to export spans batch code: 403, reason: Forbidden"


class Endpoint(SpanExporter):
    """An exporter that does what it is told.

    Args:
        answer: Given a batch, gives the reason why it is refused, or None.
    """

    def __init__(self, answer=lambda batch: None):
        self.said, self.answer = [], answer
        self.batches, self.taken = [], []

    def export(self, spans):
        self.batches.append(len(spans))
        reason = self.answer(spans)
        if reason is None:
            self.taken += spans
            return SpanExportResult.SUCCESS
        if reason:
            self.said.append(reason)
        return SpanExportResult.FAILURE

    def shutdown(self):
        pass


def spans(count, **attributes):
    with capture_spans() as captured:
        tracer = captured.provider.get_tracer("t")
        for number in range(count):
            tracer.start_span(f"span-{number}", attributes=attributes).end()
        return captured.spans


class Sent:
    """A sender and what it told."""

    def __init__(self, endpoint):
        self.endpoint, self.waits, self.taken, self.refused = endpoint, [], [], []
        self.sender = Sender(endpoint, endpoint.said, self.waits.append)

    def send(self, found):
        for batch in self.sender.send(found):
            self.taken += [span for span, reason in batch if not reason]
            self.refused += [(span, reason) for span, reason in batch if reason]
        return self


def test_batches_are_bounded_in_number_and_size():
    """No message beyond what backends take, however many and large the spans are."""
    small = Sent(Endpoint()).send(spans(1300))
    assert small.endpoint.batches == [512, 512, 276]
    large = Sent(Endpoint()).send(spans(40, text="x" * 100_000))
    assert max(large.endpoint.batches) <= 11
    assert len(large.taken) == 40


def test_no_batch_is_sent_before_the_last_one_was_taken():
    """Back-pressure: the reader waits for the endpoint, whatever it takes."""
    seen = []
    sent = Sent(Endpoint(lambda batch: seen.append(len(sent.taken))))
    sent.send(spans(1300))
    assert seen == [0, 512, 1024]


@pytest.mark.parametrize("reason", [AWAY, BUSY])
def test_an_endpoint_that_is_away_for_a_while_is_waited_for(reason):
    """Nothing is lost, and nothing sent twice."""
    answers = iter([reason, reason, None])
    sent = Sent(Endpoint(lambda batch: next(answers, None))).send(spans(600))
    assert len(sent.taken) == 600
    assert sent.refused == []
    assert sent.waits == [1.0, 2.0]


def test_an_endpoint_that_stays_away_ends_the_sending_with_its_reason():
    """After a bounded time; what had been taken counts."""
    taken = []
    sent = Sent(Endpoint(lambda batch: AWAY if taken else taken.append(1)))
    with pytest.raises(SendingStoppedError, match="UNAVAILABLE"):
        sent.send(spans(1300))
    assert len(sent.taken) == 512
    assert sent.waits == [1.0, 2.0, 4.0, 8.0]


def test_an_endpoint_that_forbids_is_not_asked_again():
    """Neither later nor span by span."""
    sent = Sent(Endpoint(lambda batch: FORBIDDEN))
    with pytest.raises(SendingStoppedError, match="403"):
        sent.send(spans(1300))
    assert sent.endpoint.batches == [512]


def test_the_one_span_that_is_refused_is_found_and_named():
    """The others of its batch are sent."""

    def bad(batch):
        return INVALID if any(span.name == "span-300" for span in batch) else None

    sent = Sent(Endpoint(bad)).send(spans(512))
    assert len(sent.taken) == 511
    [(span, reason)] = sent.refused
    assert (span.name, "bad name" in reason) == ("span-300", True)
    assert sent.waits == []


def test_batches_that_are_too_large_are_made_smaller():
    """Until they fit."""
    sent = Sent(Endpoint(lambda batch: TOO_LARGE if len(batch) > 100 else None)).send(spans(512))
    assert len(sent.taken) == 512
    assert sent.refused == []


def test_an_endpoint_that_refuses_span_after_span_ends_the_sending():
    """A wrong endpoint is not asked a million times."""
    sent = Sent(Endpoint(lambda batch: INVALID))
    with pytest.raises(SendingStoppedError, match="20 spans in a row"):
        sent.send(spans(512))
    assert len(sent.refused) == 20


def test_an_exporter_that_raises_or_says_nothing_is_a_refusal_too():
    """Its exception is the reason; without one, that it gave none."""

    def raising(batch):
        raise RuntimeError("broken exporter")

    for answer, expected in ((raising, "broken exporter"), (lambda batch: "", "no reason")):
        sent = Sent(Endpoint(answer)).send(spans(1))
        assert expected in sent.refused[0][1]


# --- jobs ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three stored runs of 40 steps."""
    import apps

    with manual_roots(), capture_spans() as captured:
        for app_id in ("a1", "a2", "a3"):
            with OtelTracker("proj", tmp_path, tracer_provider=captured.provider) as tracker:
                apps.counter(tracker, app_id, upto=39).run(halt_after=["finish"])
    return tmp_path


def chosen(folder):
    return stored_runs(folder)


def job(folder, endpoint):
    return Job(Sender(endpoint, endpoint.said, lambda seconds: None))


def outcome(done):
    return [(report.app_id, report.status, report.spans, report.refused) for report in done.reports]


def test_a_job_sends_several_runs_in_a_batch_and_accounts_for_each(folder):
    """One report a run, with its trace."""
    endpoint = Endpoint()
    done = job(folder, endpoint)
    list(done.run(chosen(folder)))
    assert outcome(done) == [(app_id, "sent", 41, 0) for app_id in ("a1", "a2", "a3")]
    assert endpoint.batches == [123]
    assert all(len(report.trace_ids) == 1 for report in done.reports)


def test_a_rehearsal_sends_nothing(folder):
    """And says what it would send."""
    done = Job(None)
    list(done.run(chosen(folder)))
    assert outcome(done) == [(app_id, "sent", 41, 0) for app_id in ("a1", "a2", "a3")]


def test_a_refused_span_is_the_refusal_of_its_run_only(folder):
    """The run is named with the reason; the others are sent."""

    def bad(batch):
        refused = any(
            span.name == "finish" and span.attributes["burr.app_id"] == "a2" for span in batch
        )
        return INVALID if refused else None

    done = job(folder, Endpoint(bad))
    list(done.run(chosen(folder)))
    assert outcome(done) == [("a1", "sent", 41, 0), ("a2", "refused", 40, 1), ("a3", "sent", 41, 0)]
    assert "bad name" in done.reports[1].reasons[0]


def test_an_interrupted_job_knows_which_runs_need_not_be_sent_again(folder, monkeypatch):
    """Those whose spans have all been taken; the one that was under way begins anew."""
    monkeypatch.setattr(send, "_BATCH_SPANS", 41)
    endpoint = Endpoint()
    done = job(folder, endpoint)

    def interrupted(batch):
        if endpoint.taken:
            raise KeyboardInterrupt

    endpoint.answer = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(done.run(chosen(folder)))
    assert outcome(done) == [("a1", "sent", 41, 0), ("a2", "unsent", 0, 0)]
    assert done.done == 1


def test_a_stopped_job_says_why(folder):
    """Its unsent runs are named."""
    done = job(folder, Endpoint(lambda batch: AWAY))
    list(done.run(chosen(folder)))
    assert {status for _, status, _, _ in outcome(done)} == {"unsent"}
    assert "UNAVAILABLE" in done.stopped
    assert done.done == 0


def test_how_far_it_is_is_told_also_within_a_long_run(folder, monkeypatch):
    """By what has been read of the logs, batch by batch; at the end it is all."""
    monkeypatch.setattr(send, "_BATCH_SPANS", 1)
    endpoint = Endpoint()
    found = list(chosen(folder))
    sizes = sum(spans.run.size_bytes for spans in found)

    sender = Sender(endpoint, endpoint.said, lambda seconds: None)
    told = list(Job(sender).run(found))
    assert told[-1] == (len(found), sizes, len(endpoint.taken))
    assert told == sorted(told)
    within = [read for runs, read, _ in told if runs == 0]
    assert len(within) > 2
    assert 0 < within[0] < within[1] < found[0].run.size_bytes


def test_an_unreadable_run_does_not_stop_the_others(folder):
    """It is named with the reason."""

    def broken():
        raise OSError("the disk is gone")

    first, *others = chosen(folder)
    first.run.records = broken
    done = job(folder, Endpoint())
    list(done.run([first, *others]))
    assert outcome(done)[0] == ("a1", "unreadable", 0, 0)
    assert done.reports[0].reasons == ["the disk is gone"]
    assert [status for _, status, _, _ in outcome(done)[1:]] == ["sent"] * 2
