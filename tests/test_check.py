"""Each usual mistake, made against a real listener, gives the sentence that says what to change."""

import json
import re
from pathlib import Path

import grpc
import pytest
from cli_support import run
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from otlp_servers import (
    CERTIFICATE,
    Refusal,
    Reply,
    closed_port,
    grpc_server,
    http_server,
    silent_server,
)

from burr_otel.check import probe
from burr_otel.check.mistakes import MISTAKES, PASSING
from burr_otel.check.run import check
from burr_otel.cli.start import check_data, check_lines

SECRET = "CANARY-0123456789"
SERVERS = {"grpc": grpc_server, "http/protobuf": http_server}
BOTH = pytest.mark.parametrize("protocol", SERVERS)


@pytest.fixture
def checked(monkeypatch, tmp_path):
    """Run a check against an endpoint, with variables by the ends of their names."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # these win over the exporter's own
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setattr(probe, "_TIMEOUT_S", 0.5)

    def checking(endpoint, protocol="grpc", **variables):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return check(str(tmp_path))

    return checking


def names(report):
    return [problem.name for problem in report.problems]


def sentence(report, name):
    """The sentence of the only problem, which must be this one."""
    assert names(report) == [name], report
    return report.problems[0].sentence


def told(report):
    """Everything that the command prints of a report, for people and for programs."""
    drawn = "\n".join(line.plain for line in check_lines(report))
    return drawn + json.dumps(check_data(report))


def refusing(status, code, message):
    def answer(request, headers):
        raise Refusal(status, code, message)

    return answer


def replying(*reply, **options):
    return lambda request, headers: Reply(*reply, **options)


# --- all is well --------------------------------------------------------------------------------


@BOTH
def test_a_test_trace_that_is_taken(protocol, checked):
    """A root and a step in our conventions, marked, under the service's name, with the headers."""
    seen = []

    def answer(request, headers):
        seen.append((request, headers))
        return ExportTraceServiceResponse()

    with SERVERS[protocol](answer) as endpoint:
        report = checked(
            endpoint,
            protocol,
            OTEL_SERVICE_NAME="shop",
            OTEL_EXPORTER_OTLP_HEADERS=f"x-honeycomb-team={SECRET}",
        )
    assert report.problems == []
    assert report.taken
    (request, headers), _ = seen
    [resource] = request.resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}[
        "service.name"
    ] == "shop"
    step, root = sorted(resource.scope_spans[0].spans, key=lambda span: not span.parent_span_id)
    assert (root.name, step.name) == ("invoke_workflow burr-otel-check", "check")
    assert step.parent_span_id == root.span_id
    assert root.trace_id.hex() == report.trace_id
    for span in (root, step):
        assert {a.key: a.value for a in span.attributes}["burr.check"].bool_value
    assert headers["x-honeycomb-team"] == SECRET
    assert report.answer.headers_sent == ("x-honeycomb-team",)
    assert SECRET not in told(report)


@BOTH
def test_it_goes_the_way_of_the_trackers_own_provider(protocol, checked, monkeypatch, tmp_path):
    """Path, headers and compression are those of a run that is traced with the same variables."""
    import apps

    from burr_otel import OtelTracker
    from burr_otel.spans import provider

    seen = []

    def answer(request, headers):
        kept = ("x-key", "content-encoding", ":path", "content-type", "x-other")
        seen.append({key: headers.get(key) for key in kept})
        return ExportTraceServiceResponse()

    monkeypatch.setattr(provider, "_own", {})
    with SERVERS[protocol](answer) as endpoint:
        checked(endpoint, protocol, OTEL_EXPORTER_OTLP_HEADERS="x-key=a,x-other=b%20c")
        with OtelTracker("proj", tmp_path) as tracker:
            apps.counter(tracker).step()
    assert len(seen) > 1
    assert all(each == seen[0] for each in seen)
    assert seen[0]["x-other"] == "b c"


def test_a_certificate_that_is_named_is_trusted(checked, tmp_path):
    """TLS to a server of one's own authority."""
    authority = tmp_path / "authority.pem"
    authority.write_text(CERTIFICATE.read_text().partition("-----BEGIN PRIVATE")[0])
    for protocol, server in SERVERS.items():
        with server(tls=True) as endpoint:
            report = checked(endpoint, protocol, OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority))
        assert names(report) == [], report.said


def test_an_authority_whose_file_is_missing_is_named(checked, tmp_path):
    """Whatever gRPC makes of that, its server speaks TLS."""
    missing = str(tmp_path / "missing.pem")
    with grpc_server(tls=True) as endpoint:
        report = checked(endpoint, OTEL_EXPORTER_OTLP_CERTIFICATE=missing)
    assert f"there is no file {missing}" in sentence(report, "certificate")


# --- it is not there ----------------------------------------------------------------------------


def test_a_configuration_file_is_said_not_to_be_read(checked):
    """The tracker's own provider goes by the other variables, as the check does."""
    report = checked(f"http://localhost:{closed_port()}", OTEL_CONFIG_FILE="otel.yaml")
    (warning,) = report.warnings
    assert "OTEL_CONFIG_FILE='otel.yaml' is not read" in warning


@BOTH
def test_nothing_listens(protocol, checked):
    """A closed port; trying again may help."""
    endpoint = closed_port()
    report = checked(endpoint, protocol)
    assert endpoint.removeprefix("http://") in sentence(report, "nothing_listening")
    assert report.passing


@BOTH
def test_a_name_that_is_not_known(protocol, checked):
    """The host is named."""
    report = checked("http://collector.invalid:4317", protocol)
    assert "collector.invalid" in sentence(report, "dns")


@BOTH
def test_a_server_that_hangs(protocol, checked):
    """It takes the connection and says nothing; the wait is that of the settings."""
    with silent_server() as endpoint:
        report = checked(endpoint, protocol, OTEL_EXPORTER_OTLP_TIMEOUT="0.5")
    assert "firewall" in sentence(report, "timeout")
    assert report.answer.timeout_s == 0.5


# --- transport ----------------------------------------------------------------------------------


def test_grpc_to_the_http_port(checked):
    """The sentence names the protocol to set."""
    with http_server() as endpoint:
        report = checked(endpoint, "grpc")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in sentence(report, "grpc_to_http")
    assert not report.passing


def test_http_to_the_grpc_port(checked):
    """The reverse."""
    with grpc_server() as endpoint:
        report = checked(endpoint, "http/protobuf")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in sentence(report, "http_to_grpc")


@BOTH
def test_https_to_a_plain_port(protocol, checked):
    """Whichever of the two protocols is behind it."""
    for server in SERVERS.values():
        with server() as endpoint:
            report = checked(endpoint.replace("http:", "https:"), protocol)
        assert "http:// for https://" in sentence(report, "tls_to_plain")


@BOTH
def test_http_to_a_tls_port(protocol, checked):
    """The reverse."""
    for server in SERVERS.values():
        with server(tls=True) as endpoint:
            report = checked(endpoint.replace("https:", "http:"), protocol)
        assert "https:// for http://" in sentence(report, "plain_to_tls")


def test_http_to_a_tls_port_that_says_so(checked):
    """Servers in Go answer a plain request themselves."""
    said = b"Client sent an HTTP request to an HTTPS server."
    with http_server(replying(400, said, "text/plain")) as endpoint:
        assert names(checked(endpoint, "http/protobuf")) == ["plain_to_tls"]


@BOTH
def test_a_certificate_that_is_not_trusted(protocol, checked):
    """The sentence says why, and where an authority is named."""
    with SERVERS[protocol](tls=True) as endpoint:
        said = sentence(checked(endpoint, protocol), "certificate")
    assert "self-signed certificate" in said.replace("self signed", "self-signed")
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in said


@BOTH
@pytest.mark.parametrize(
    ("endpoint", "write"),
    [
        ("collector:4317", "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317"),
        ("grpc://collector:4317", "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317"),
        (f"me:{SECRET}@collector", "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector"),
        ("http://", "OTEL_EXPORTER_OTLP_ENDPOINT=http://"),
    ],
)
def test_an_endpoint_that_is_no_url(endpoint, write, protocol, checked):
    """GRPC takes a bare host for one with TLS, HTTP takes it not at all."""
    report = checked(endpoint, protocol)
    assert write in sentence(report, "wrong_scheme")
    assert SECRET not in told(report)


# --- refusals -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, grpc.StatusCode.UNAUTHENTICATED),
        (403, grpc.StatusCode.PERMISSION_DENIED),
    ],
)
def test_keys(status, code, protocol, checked):
    """None, a missing one, and a wrong one, whose value is never shown."""
    unknown = refusing(status, code, f"unknown key {SECRET}")
    with SERVERS[protocol](unknown) as endpoint:
        assert "x-honeycomb-team=KEY" in sentence(checked(endpoint, protocol), "no_key")
        report = checked(endpoint, protocol, OTEL_EXPORTER_OTLP_HEADERS=f"x-api-key={SECRET}")
    said = sentence(report, "bad_key")
    assert "unknown key ***" in said
    assert "correct x-api-key in OTEL_EXPORTER_OTLP_HEADERS" in said
    assert SECRET not in told(report)
    missing = refusing(status, code, "missing 'x-honeycomb-dataset' header")
    with SERVERS[protocol](missing) as endpoint:
        report = checked(endpoint, protocol)
    assert "add x-honeycomb-dataset=VALUE" in sentence(report, "missing_header")


@BOTH
def test_headers_that_cannot_be_read(protocol, checked, caplog):
    """A key without its name is a mistake of its own; the key is not shown, nor logged."""
    with SERVERS[protocol]() as endpoint:
        report = checked(endpoint, protocol, OTEL_EXPORTER_OTLP_HEADERS=f"{SECRET}")
    assert "name=value" in sentence(report, "bad_headers")
    assert SECRET not in told(report) + caplog.text


@pytest.mark.parametrize(
    ("variable", "path", "name"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces", "path_doubled"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "path_missing"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/trace", "path_missing"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/otlp", "wrong_path"),
    ],
)
def test_wrong_paths(variable, path, name, checked):
    """One variable gets /v1/traces added and the other one not."""

    def answer(request, headers):
        right = headers[":path"] == "/v1/traces"
        return ExportTraceServiceResponse() if right else Reply(404, b"not found", "text/plain")

    with http_server(answer) as endpoint:
        report = checked(endpoint, "http/protobuf", **{variable: endpoint + path})
        assert variable in sentence(report, name)
        assert checked(endpoint, "http/protobuf", **{variable: endpoint}).taken is (
            variable == "OTEL_EXPORTER_OTLP_ENDPOINT"
        )


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"<html><style>p {}</style><p>Welcome</p></html>", "text/html"),
        (415, b"Welcome", "text/plain"),
    ],
)
def test_a_server_of_something_else(reply, checked):
    """A web page is no answer to a trace, whatever its status; the exporter would be content."""
    with http_server(replying(*reply)) as endpoint:
        report = checked(endpoint, "http/protobuf")
    assert "Welcome)" in sentence(report, "not_otlp")
    assert not report.taken


def test_a_grpc_server_of_something_else(checked):
    """It knows no trace service."""
    with grpc_server(None) as endpoint:
        assert names(checked(endpoint)) == ["not_otlp"]


def test_a_redirect(checked):
    """The exporter takes it for a success and loses everything."""
    to = f"https://me:{SECRET}@elsewhere/v1/traces"
    with http_server(replying(308, headers={"Location": to})) as endpoint:
        report = checked(endpoint, "http/protobuf")
    assert "https://elsewhere/v1/traces" in sentence(report, "redirect")
    assert not report.taken


@BOTH
def test_messages_that_are_too_large(protocol, checked):
    """The settings that make messages smaller are named."""
    large = refusing(413, grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max (9 vs. 4)")
    with SERVERS[protocol](large) as endpoint:
        said = sentence(checked(endpoint, protocol), "too_large")
    assert "BURR_OTEL_MAX_ATTRIBUTE_BYTES" in said
    assert "9 vs. 4" in said


@BOTH
def test_a_batch_of_a_realistic_size_is_tried_too(protocol, checked):
    """Its steps belong to the test trace, and there is as much in it as the defaults allow."""
    seen = []

    def answer(request, headers):
        seen.append(request)
        return ExportTraceServiceResponse()

    with SERVERS[protocol](answer) as endpoint:
        report = checked(endpoint, protocol)
    assert report.taken
    trace, batch = (
        [s for r in q.resource_spans for ss in r.scope_spans for s in ss.spans] for q in seen
    )
    (root,) = (span for span in trace if not span.parent_span_id)
    assert {span.trace_id for span in batch} == {root.trace_id}
    assert {span.parent_span_id for span in batch} == {root.span_id}
    assert all({a.key: a.value for a in s.attributes}["burr.check"].bool_value for s in batch)
    assert 1_500_000 < report.batch.size_bytes == seen[1].ByteSize() < 2_500_000
    assert "large batch" in told(report)


def test_a_batch_that_is_too_large_though_the_trace_was_taken(checked):
    """A limit below what long chats send is found, named with both sizes, and can be kept to."""
    with grpc_server(longest_bytes=1_000_000) as endpoint:
        report = checked(endpoint)
        said = sentence(report, "too_large")
        assert not report.taken
        assert not report.passing
        assert re.search(r"no message of 2,\d\d\d kB", said)
        assert "1000000" in said
        assert checked(endpoint, BURR_OTEL_MAX_ATTRIBUTE_BYTES="1024").problems == []
        few = checked(
            endpoint, BURR_OTEL_MAX_ATTRIBUTE_BYTES="16384", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32"
        )
        assert few.problems == []


@BOTH
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (503, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_an_endpoint_that_is_busy(status, code, protocol, checked):
    """Trying again may help, and nothing is tried again inside of the check."""
    asked = []

    def answer(request, headers):
        asked.append(request)
        raise Refusal(status, code, "slow down")

    with SERVERS[protocol](answer) as endpoint:
        report = checked(endpoint, protocol)
    assert "slow down" in sentence(report, "busy")
    assert report.passing
    assert len([request for request in asked if request.resource_spans]) == 1


@BOTH
def test_a_partial_success(protocol, checked):
    """The exporter is content; the check is not."""
    partial = ExportTracePartialSuccess(rejected_spans=1, error_message="too old")
    response = ExportTraceServiceResponse(partial_success=partial)
    with SERVERS[protocol](lambda request, headers: response) as endpoint:
        report = checked(endpoint, protocol)
    assert "left out 1 of its spans (" in sentence(report, "partly_refused")
    assert "too old" in report.said
    assert not report.taken


@BOTH
def test_any_other_refusal(protocol, checked):
    """It is shown in the endpoint's words."""
    broken = refusing(400, grpc.StatusCode.INVALID_ARGUMENT, "empty name")
    with SERVERS[protocol](broken) as endpoint:
        assert "empty name" in sentence(checked(endpoint, protocol), "refused")


# --- proxies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [407, 502, 503, 504])
def test_a_proxy_of_http_in_the_way(status, checked):
    """The variable of the proxy is named, without the proxy's password."""
    with http_server(replying(status)) as proxy:
        behind = proxy.replace("//", f"//me:{SECRET}@")
        report = checked("http://collector:4318", "http/protobuf", http_proxy=behind)
    said = sentence(report, "proxy")
    assert "http_proxy" in said
    assert "add collector to no_proxy" in said
    assert SECRET not in told(report)


def test_a_proxy_that_opens_no_tunnel(checked):
    """With TLS the request itself never gets to the endpoint."""
    with http_server(replying(403)) as proxy:
        report = checked("https://collector:4318", "http/protobuf", HTTPS_PROXY=proxy)
    assert "HTTPS_PROXY" in sentence(report, "proxy")


def test_a_proxy_of_grpc_in_the_way(checked):
    """GRPC reads the variables in small letters, and asks for a tunnel in any case."""
    with http_server(replying(407)) as proxy, grpc_server() as endpoint:
        report = checked(endpoint, http_proxy=proxy)
        assert "http_proxy" in sentence(report, "proxy")
        assert names(checked(endpoint, http_proxy=proxy, no_proxy="localhost")) == []


# --- settings that keep every trace back --------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_SDK_DISABLED", "true", "disabled"),
        ("OTEL_TRACES_EXPORTER", "none", "no_exporter"),
        ("OTEL_TRACES_EXPORTER", "console", "no_exporter"),
        ("OTEL_TRACES_SAMPLER", "always_off", "sampled_out"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off", "sampled_out"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "bad_value"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "bad_value"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "bad_value"),
    ],
)
def test_settings_that_keep_every_trace_back(variable, value, name, checked):
    """The variable is named, though the endpoint is well."""
    with grpc_server() as endpoint:
        report = checked(endpoint, **{variable: value})
    said = sentence(report, name)
    assert variable in said
    assert not report.passing


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_a_sampler_of_no_trace_and_of_few(sampler, checked):
    """A share of 0 keeps every trace back; the test trace goes out at any share."""
    with grpc_server() as endpoint:
        settings = {"OTEL_TRACES_SAMPLER": sampler}
        none = checked(endpoint, **settings, OTEL_TRACES_SAMPLER_ARG="0")
        few = checked(endpoint, **settings, OTEL_TRACES_SAMPLER_ARG="0.0001")
    assert names(none) == ["sampled_out"]
    assert names(few) == []
    assert "0.0001" in few.sampler


def test_our_own_variables(checked):
    """Those in force are listed, typing errors stand out, and patterns are only counted."""
    with grpc_server() as endpoint:
        report = checked(
            endpoint,
            BURR_OTEL_CAPTURE="types",
            BURR_OTEL_CAPTUR="off",
            BURR_OTEL_REDACT_VALUES=f"{SECRET},b",
            BURR_OTEL_DURABILITY="forever",
        )
    own = {k: v for k, v in report.settings.items() if "BACKENDS" not in k}
    assert own == {
        "BURR_OTEL_CAPTURE": "types",
        "BURR_OTEL_CAPTUR": "(no setting of that name)",
        "BURR_OTEL_REDACT_VALUES": "2 patterns",
        "BURR_OTEL_DURABILITY": "(not usable)",
    }
    assert SECRET not in told(report)


def test_a_folder_that_cannot_be_written(checked, tmp_path):
    """A file stands where the folder should be; no folder is made by asking."""
    (tmp_path / "file").write_text("")
    with grpc_server():
        report = check(str(tmp_path / "file"))
    assert "file" in next(p.sentence for p in report.problems if p.name == "storage")
    check(str(tmp_path / "new" / "folder"))
    assert not (tmp_path / "new").exists()


def test_a_user_in_an_address_of_grpc(checked):
    """GRPC would take it for a part of the host's name."""
    report = checked(f"http://me:{SECRET}@localhost:4317")
    assert "as a header" in sentence(report, "user_in_url")
    assert SECRET not in told(report)


def test_every_mistake_has_one_sentence():
    """It ends with what to change, and a mistake that may pass is one of them."""
    assert set(PASSING) <= set(MISTAKES)
    for text in MISTAKES.values():
        assert text.endswith(".")
        assert text.count(". ") == 0
        assert ";" in text


def test_every_mistake_is_documented():
    """docs/troubleshooting.md has each sentence as it is, with dots for what is filled in."""
    page = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text("utf-8")
    table = page.partition("<!-- mistakes: begin -->")[2].partition("<!-- mistakes: end -->")[0]
    rows = [f"| `{name}` | {re.sub(r'{[a-z]+}', '…', text)} |" for name, text in MISTAKES.items()]
    assert [line for line in table.splitlines() if line.startswith("| `")] == rows


def test_the_executable():
    """Output, JSON and exit codes of the real thing: 0, 1 and 5, in this order."""
    with grpc_server() as endpoint:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={SECRET}",
        }
        well = run("check", **variables)
        wrong = run("check", "--json", **variables, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    away = run("check", **variables)
    assert (well.returncode, wrong.returncode, away.returncode) == (0, 1, 5)
    assert "Sent, and taken: trace " in well.stdout
    assert "x-key (OTEL_EXPORTER_OTLP_HEADERS)" in well.stdout
    assert json.loads(wrong.stdout)["problems"][0]["name"] == "http_to_grpc"
    assert "Nothing listens" in away.stdout
    for each in (well, wrong, away):
        assert SECRET not in each.stdout + each.stderr
        assert not each.stderr
