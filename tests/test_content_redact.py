"""Secrets are known by their keys and their forms, wherever they stand, and nothing shows of them."""

from __future__ import annotations

import itertools
import json
import random
import re
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from burr_otel.content import ContentPolicy, pairs, patterns, redact
from burr_otel.content.prune import OVERLAP, clip, window
from burr_otel.content.redact import MARKER, Redaction

CANARY = "hunter2CANARYx"
REDACTION = Redaction()


def described(value: object, limit: int = 16_384) -> str:
    """What a span shows of a value."""
    return ContentPolicy(max_attribute_bytes=limit).document("state", value).value


THOROUGH = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

# --- keys -----------------------------------------------------------------------------------------

SECRET_KEYS = """
password Password PASSWORD db_password password1 userPassword passwd mysql_pwd MYSQL_PWD passphrase
secret client_secret clientSecret SECRET_KEY secrets secret_id AWS_SECRET_ACCESS_KEY
token access_token accessToken refresh-token id_token GITHUB_TOKEN auth_token authtoken x-amz-security-token
user.token csrf_token xsrf csrfmiddlewaretoken session_token bearer jwt
api_key apikey API-KEY apiKey APIKey X-Api-Key openai_api_key api.key apiKeys OPENAI_API_KEY_2
authorization Authorization proxy-authorization auth basic_auth http_auth auth_header
cookie Cookie Set-Cookie cookies sessionid PHPSESSID connect.sid credential credentials aws_credentials
private_key privateKey ssh_key encryption_key signing_key access_key master_key account_key
ssn cvv pin otp totp credit_card card_number socialSecurityNumber smtp_pass db_pass pass sig webhook_url
Passwort kennwort mot_de_passe contraseña senha pword auth_token_v2 Authorisation connection_string
connStr privKey mfa_code cc_number securityAnswer client_assertion JSESSIONID .ASPXAUTH
ASP.NET_SessionId x-honeycomb-team
""".split()  # noqa: SIM905  a list would fill two pages

HARMLESS_KEYS = """
tokens max_tokens prompt_tokens completion_tokens total_tokens token_count token_usage tokenizer max_token
num_tokens tokens_used eos_token stop_token next_token time_per_token input_token_details
author authors authority authenticated is_authenticated unauthorized oauth_version
key keys primary_key foreign_key sort_key partition_key cache_key keyboard monkey hotkey
secretary secretariat cookie_consent password_policy
session session_id sessionId app_id user_id passenger compass passed bypass pass_rate first_pass
signature design assigned pinned spinning shopping opinion social cards scorecard
access accessible private public content role name value message prompt id
connection connected answer password_strength account num_results sword
cookie_count cookies_accepted authorization_status secret_count token_budget auth_method api_key_present
password_changed_at password_reset_requested credential_type token_valid token_expires_at
""".split()  # noqa: SIM905  a list would fill two pages


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_secrets_key_hides_its_value(key):
    """Usual names of secrets are known in every spelling, whatever their value is."""
    assert REDACTION.hides(key)


@pytest.mark.parametrize("key", HARMLESS_KEYS)
def test_a_harmless_key_hides_nothing(key):
    """Names that only look like those of secrets show their value."""
    assert not REDACTION.hides(key)


def test_every_secret_key_has_a_stem():
    """The quick look for stems never overlooks a key that the table knows."""
    for key in SECRET_KEYS:
        assert patterns.SECRET_STEM.search(key.lower())


def test_long_keys_are_judged_by_both_ends():
    """A key of any length costs the same and is still known by its beginning and its end."""
    assert REDACTION.hides("password" + "x" * 1_000_000)
    assert REDACTION.hides("a." * 500_000 + "password")
    assert not REDACTION.hides("x" * 1_000_000)


def test_keys_of_the_users_own_count_too():
    """``redact_keys`` are regular expressions, searched without regard to case."""
    redaction = Redaction(keys=["e-?mail", "^iban$"])
    assert redaction.hides("Email")
    assert redaction.hides("iban")
    assert not redaction.hides("iban_count")
    assert redaction.text(f"E-Mail: {CANARY}") == f"E-Mail: {MARKER}"
    assert not redaction.hides("count")


def test_without_the_built_in_patterns_only_the_users_own_count():
    """``redact=False`` turns the tables off, not what the user asked for."""
    redaction = Redaction(builtin=False, keys=["mail"], values=[r"\bX\d+"])
    assert not redaction.hides("password")
    assert redaction.text(f"password={CANARY}") == f"password={CANARY}"
    assert redaction.hides("mail")
    assert redaction.text("id X123 and sk-" + "a" * 20) == f"id {MARKER} and sk-" + "a" * 20


def test_the_cache_of_keys_stays_small():
    """Keys made from data do not fill the memory."""
    redaction = Redaction()
    for number in range(20_000):
        redaction.hides(f"key {number}")
    assert redaction._judge.cache_info().currsize <= redact._CACHED
    for number in range(20_000):
        redaction.is_harmless(f"harmless {number}")
    assert redaction._says_nothing.cache_info().currsize <= redact._CACHED


@pytest.mark.parametrize("setting", ["keys", "values"])
def test_a_pattern_that_does_not_compile_is_named(setting):
    """The error says which setting, which pattern and what to do."""
    with pytest.raises(ValueError, match=rf"redact_{setting}: '\(' is not a regular.*backslash"):
        Redaction(**{setting: ["("]})


# --- texts ----------------------------------------------------------------------------------------

C = CANARY
LEAKING = [
    # pairs as programs write them
    f"password={C}",
    f"Password: {C}",
    f"PASSWORD = '{C}'",
    f'{{"password": "{C}"}}',
    f"{{'password': '{C}', 'n': 1}}",
    f"Config(api_key='{C}', n=1)",
    f"Config(password=Secret('{C}'))",
    f"export GITHUB_TOKEN={C}",
    f"AccountName=x;AccountKey={C};Suffix=y",
    f"Server=x;Password={C};Pwd={C}",
    f"'password': ['{C}', '{C}']",
    f'"credentials": {{"user": "u", "pass": "{C}"}}',
    f"password:\n  {C}\nnext: 1",
    f"private_key: |\n  {C}\n  {C}\nnext: 1",
    f"db_password[0]={C}",
    f"user[password]={C}",
    f"password => {C}",
    f"password\uff1a{C}",
    f"passphrase: correct horse {C}",
    f"passwords:\n  - {C}\n  - {C}\nnext: 1",
    f"\u201cpassword\u201d: \u201ca {C}\u201d",
    # the repr of a text with several lines
    repr(f"GET /\r\nX-Api-Key: {C}\r\nCookie: a={C}; b={C}\r\n"),
    repr(f"error\ntoken: {C}"),
    f"token:{C}",
    f"password=`{C}`",
    f"password=<{C}>",
    f"password='it\\'s {C}'",
    f'password="{C}',
    # source code
    f"password = '{C}'",
    f'password = """{C}\nmore {C}"""',
    f"password='a' '{C}'",
    f"password = 'a' + '{C}'",
    f"password: str = '{C}'",
    f"def f(password: Optional[str] = '{C}', b=1): pass",
    f"os.environ['API_KEY'] = '{C}'",
    f'd["password"] = "{C}"',
    f"if password == '{C}':",
    f"if password != '{C}':",
    f"password := {C}",
    f"password = b'{C}'",
    f"password = rf'{C}'",
    f"password = (\n    '{C}'\n)",
    # JSON inside of text
    json.dumps({"a": json.dumps({"password": C})}),
    json.dumps({"a": json.dumps({"b": json.dumps({"api_key": C, "c": 1})})}),
    json.dumps({"password": {"old": C, "new": [C]}}, indent=2),
    f'{{"password": "a\\"{C}"}}',
    f'\\"password\\": \\"{C}\\"',
    # web
    f"https://user:{C}@host/x",
    f"postgres://u:{C}/{C}@h:5432/db?x=1",
    f"https://h/x?api_key={C}&b=2",
    f"https://h/x?b=1&access_token={C}",
    f"https://h/x?u=http%3A%2F%2Fh%3Fpassword%3D{C}%26x%3D1",
    f"https://h/x?u=http%253A%252F%252Fh%253Fa%253Db%2526password%253D{C}%2526x%253D1",
    f"%7B%22password%22%3A%20%22{C}%22%7D",
    f"Authorization: Bearer {C}",
    f"authorization: Basic {C}",
    f'Proxy-Authorization: Digest username="u", response="{C}"',
    f"Cookie: a={C}; b={C}",
    f"Set-Cookie: sid={C}; Path=/",
    f"X-API-Key: {C}",
    f"Bearer {C}",
    f"-H 'Authorization: Bearer {C}'",
    f"[('x-api-key', '{C}')]",
    f'["password", "{C}"]',
    f"headers={{'authorization': b'{C}'}}",
    f"<password>{C}</password>",
    f"<ns:apiKey attr='1'>{C}</ns:apiKey>",
    f'<input name="password" value="{C}">',
    f'<add key="ApiKey" value="{C}"/>',
    f"<password><![CDATA[{C}]]></password>",
    f'name="password"\r\nContent-Type: text/plain\r\n\r\n{C}\r\n',
    f'name="password"\r\n\r\n{C}\r\n',
    f"&quot;password&quot;:&quot;{C}&quot;",
    f"https://hooks.slack.com/services/T000/B000/{C}",
    # command lines
    f"--password {C}",
    f"--api-key={C}",
    f"login --token '{C}' now",
    f"curl -u user:{C} http://x",
    f"<password>{C}</password> --token {C}",
    f"['password', '{C}'] ?x=a%3Fpassword%3D{C} <token>{C}</token>",
    # prose
    f"password is {C}",
    f"My password is {C}.",
    f"invalid token '{C}'",
    f'API key "{C}" rejected',
    f"The API key is: {C}",
    f"Incorrect API key provided: {C}.",
    f"client secret = {C}",
    f"IDENTIFIED BY PASSWORD '{C}'",
    f"CREATE USER 'u'@'%' IDENTIFIED BY '{C}'",
    # reports of libraries
    f"1 error\npassword\n  bad [type=x, input_value='{C}', input_type=str]",
    f"-----BEGIN RSA PRIVATE KEY-----\n{C}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\\n{C}",
]

TOKENS = [
    "sk-proj-" + "a1B2" * 8,
    "sk-ant-api03-" + "a1B2" * 8,
    "sk_live_" + "a1B2" * 6,
    "AKIAABCDEFGH12345678",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 10,
    "glpat-" + "a1B2" * 5,
    "xoxb-123456789-abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF_123-x",
    "AIza" + "a1B2" * 9,
    "hf_" + "a1B2" * 9,
    "npm_" + "a1B2" * 9,
    "pypi-" + "a1B2" * 9,
    "SG." + "a1B2" * 5 + "." + "a1B2" * 5,
    "gsk_" + "a1B2" * 9,
    "lsv2_pt_" + "a1B2" * 9,
]

HARMLESS = [
    "max_tokens=5, prompt_tokens: 12",
    "author: Bob",
    "The author said: hello",
    "primary_key=5 and key: value",
    "user@example.com: hi",
    "http://host:8080/path?mail=a@b.com",
    "git@github.com:x/y.git",
    "I forgot my password: can you help?",
    "The token: it costs 5 dollars",
    "the password is wrong",
    "the password is hard to guess",
    "authorization: who may enter?",
    "api key: where do I find it?",
    "password = none",
    "token=5",
    "def login(user, password=None):",
    "my token is called Bob",
    "password policy: at least 12 characters",
    "auth_token_count=3",
    "Use --token-limit 100 please",
    "ssh://git@github.com/x",
    "a == b, 12:30:45, x=1",
    "token count: 5",
    "API key is missing",
    "token is expired",
    "password=None, api_key=null, token: false",
    "The Basic authentication and Bearer authentication",
    "sk-learn is nice, risk-averse-and-long-enough-word",
    "d3b07384-d9a0-4c9b-8f3e-1f2a3b4c5d6e",
    "import secrets; secrets.token_hex(16)",
    "session_id: 5",
    "def f(x: int = 5) -> str: pass",
    "/usr/lib/python3.11/site-packages/burr/core/application.py",
    json.dumps([{"id": 1, "name": "a", "usage": {"total_tokens": 3}}]),
]


@pytest.mark.parametrize("text", LEAKING)
def test_a_named_secret_in_a_text_is_hidden(text):
    """Whatever the notation, nothing of the value is left, and the marker says nothing of it."""
    shown = REDACTION.text(text)
    assert CANARY not in shown
    assert MARKER in shown
    assert len(shown) <= len(text) + 2 * len(MARKER)


@pytest.mark.parametrize("text", LEAKING)
def test_the_quick_look_never_overlooks_what_the_search_finds(text):
    """`are_clean` says no for every text in which something is hidden, also amid other text."""
    assert REDACTION.spans(text)
    assert not REDACTION.are_clean([text])
    assert not REDACTION.are_clean(["harmless", text, "harmless too"])


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "a {} b", "'{}'", "x={}", "é{}é", "id:{},", "[{}]"])
def test_tokens_are_known_by_their_form(token, around):
    """Keys of well-known services are hidden without any name before them."""
    shown = REDACTION.text(around.format(token))
    assert token not in shown
    assert token[6:] not in shown
    assert not REDACTION.are_clean(["x", around.format(token)])


@pytest.mark.parametrize(("service", "form"), patterns.TOKEN_FORMATS, ids=lambda text: text[:20])
def test_each_service_is_known_by_its_form(service, form):
    """In prose, in a URL, in a config line, in JSON, and whatever the letters are."""

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(st.from_regex(re.compile(form, re.ASCII), fullmatch=True))
    def check(token):
        for around in (
            "use {} now",
            "https://h/x?k={}&page=2",
            "KEY={}",
            "key: {}",
            '{{"k": "{}"}}',
        ):
            text = around.format(token)
            assert not REDACTION.are_clean([text]), service
            shown = REDACTION.text(text)
            assert token not in shown
            assert MARKER in shown

    check()


def test_the_formats_are_told_apart():
    """Some seventy services, each named once; every format begins with a literal."""
    names = [name for name, _ in patterns.TOKEN_FORMATS]
    assert len(set(names)) == len(names) >= 70
    assert all(re.match(r"[A-Za-z]", form) for _, form in patterns.TOKEN_FORMATS)


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_stay_as_they_are(text):
    """What only looks like a secret is left alone."""
    assert REDACTION.text(text) == text


def test_json_text_stays_json_where_it_can():
    """A hidden member of a JSON text leaves the text parseable."""
    text = json.dumps({"password": "x", "n": 5, "api_key": {"a": [1]}, "pin": 1234, "last": "y"})
    assert json.loads(REDACTION.text(text)) == {
        "password": MARKER,
        "n": 5,
        "api_key": MARKER,
        "pin": MARKER,
        "last": "y",
    }


def test_the_rest_of_a_text_is_kept():
    """Only the secret goes, so that a message still says what went wrong."""
    assert REDACTION.text("cannot log in to db.example.com as bob with password='x', retry 3") == (
        f"cannot log in to db.example.com as bob with password='{MARKER}', retry 3"
    )
    assert REDACTION.text("GET https://h/x?api_key=abc&page=2 failed") == (
        f"GET https://h/x?api_key={MARKER}&page=2 failed"
    )


# --- cuts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [*TOKENS, f"password={CANARY}", f'"api_key": "{CANARY}"'])
def test_a_secret_across_a_cut_shows_nothing_of_itself(secret):
    """Wherever a cut falls inside of a secret, no part of it is kept."""
    words = "lorem ipsum dolor sit amet " * 200
    value = secret.rpartition("=")[2].rpartition(" ")[2].strip('"') if CANARY in secret else secret
    for before in range(2000, 2000 + len(secret) + 2, 3):
        text = f"{words[:before]} {secret} {words[:3000]}"
        for room in range(2000, 2064, 7):
            visible, _ = clip(REDACTION.text(window(text, room)), room)
            assert value[:8] not in visible
            assert value[-8:] not in visible
            assert len(visible) <= room


def test_only_the_ends_of_a_long_text_are_searched(monkeypatch):
    """The cost of a text of any length is that of the parts that may be kept."""
    searched = []
    monkeypatch.setattr(Redaction, "spans", lambda self, text: searched.append(len(text)) or [])
    REDACTION.text(window("x " * 25_000_000, 999))
    assert searched
    assert max(searched) == 999 + OVERLAP + len("</")  # as if an element ended there


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN RSA PRIVATE KEY-----\n" + "a1B2c3D4/" * 900 + "\n-----END RSA PRIVATE KEY-----",
        "eyJ" + "a1B2" * 250 + "." + "a1B2" * 900 + "." + "a1B2" * 900,
        "<privateKey>\n" + "a1B2 c3D4\n" * 900 + "</privateKey>",
    ],
    ids=["private key", "token", "element"],
)
@pytest.mark.parametrize("before", [0, 100, 600, 3000, 9000])
def test_the_rest_of_a_secret_that_is_cut_in_its_middle_is_not_shown(secret, before):
    """The tail of a long text begins after a secret that the part left out began with."""
    text = "lorem ipsum " * (before // 12) + secret + " and the end"
    visible, _ = clip(REDACTION.text(window(text, 1000)), 1000)
    for shown in (visible, described({"t": text}, 1000), described([text], 1000)):
        assert "a1B2" not in shown
        assert "c3D4" not in shown


def test_elements_that_end_in_the_tail_hide_no_more_than_secrets():
    """An end tag without its begin: of a secret it hides what stands before it, of others nothing."""
    text = "x" * 9_000 + " y" * 2_000 + " seen</{}> after <b>bold</b>"
    shown, _ = clip(REDACTION.text(window(text.format("title"), 1000)), 1000)
    assert shown.endswith("seen</title> after <b>bold</b>")
    hidden, _ = clip(REDACTION.text(window(text.format("password"), 1000)), 1000)
    assert "seen" not in hidden
    assert hidden.endswith("</password> after <b>bold</b>")


@pytest.mark.parametrize("before", range(4_060, 4_100, 7))
def test_no_half_of_a_token_is_left_where_bytes_are_cut(before):
    """Of long bytes only the head is looked at; it ends between two words."""
    token = "sk-ant-api03-" + "a1B2c3D4" * 5
    value = ("word " * 1000)[:before].encode() + b" " + token.encode() + b" word" * 1000
    shown = described({"t": value}, 16_000)
    assert "sk-a" not in shown
    assert "more bytes]" in shown


# --- where values stand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"password": CANARY},
        {"a": [{"b": {"api_key": {"deep": [CANARY]}}}]},
        {"headers": [["authorization", CANARY], ("x-api-key", CANARY)]},
        {"env": [{"name": "DB_PASSWORD", "value": CANARY}, {"key": "token", "value": CANARY}]},
        {"text": json.dumps({"password": CANARY})},
        {"bytes": f"password={CANARY}".encode()},
        {("user", "password"): CANARY},
        {f"password={CANARY}": 1},
        {"error": ValueError(f"password={CANARY}")},
        {"url": f"https://u:{CANARY}@h"},
        {"password": int.from_bytes(CANARY.encode(), "big"), "PIN": 4711},
        {"scope": [(b"authorization", CANARY.encode()), [b"x-api-key", CANARY.encode()]]},
        {"form": [{"field": "password", "value": CANARY}, {"name": "Cookie", "values": [CANARY]}]},
        {"argv": ["psql", "--password", CANARY, "-v"], "tuple": ("x", "--api-key", CANARY)},
        {"first": "plain text", "argv": f"-u admin:{CANARY}"},
        {"argv": [["x"] * 300 + ["--token", CANARY, *["x"] * 300]]},
        {b"password": CANARY, "k": {b"authorization": CANARY.encode()}},
    ],
)
def test_nested_secrets_are_hidden(value):
    """In dicts, lists of pairs, spelled-out pairs, texts, bytes, keys and exceptions."""
    data = described(value)
    shown = json.dumps(json.loads(data), ensure_ascii=False)
    assert CANARY not in shown
    assert str(int.from_bytes(CANARY.encode(), "big")) not in shown
    assert "4711" not in shown
    assert MARKER in shown


def test_whether_a_secret_is_set_may_be_seen():
    """``None`` and booleans under a secret's key help to find errors, and give nothing away."""
    value = {"password": None, "has_token": True, "api_key": ""}
    data = described(value)
    assert json.loads(data) == {"password": None, "has_token": True, "api_key": MARKER}


FILLER = st.text(st.sampled_from("ab :=\"'{}[],.\n\\&;é"), max_size=60)
PLACES = [
    lambda inner: {"password": inner},
    lambda inner: {"note": inner, "other": [1, 2]},
    lambda inner: [inner, inner],
    lambda inner: {"a": {"b": inner}},
    lambda inner: ("x", inner),
]


@THOROUGH
@given(
    FILLER,
    st.sampled_from(TOKENS),
    FILLER,
    st.lists(st.sampled_from(PLACES), max_size=4),
    st.integers(64, 900),
)
def test_no_token_shows_through_any_structure_text_or_budget(before, token, after, places, limit):
    """A planted token appears in no output: amid any text, in any container, under any cut."""
    value: object = f"{before} {token} {after}"
    for place in places:
        value = place(value)
    data = described({"v": value}, limit)
    assert len(data) <= limit
    assert token not in data
    assert token[4:14] not in data


@THOROUGH
@given(
    st.text(st.sampled_from("abc XYZ 123.,é"), max_size=50),
    st.sampled_from([text for text in LEAKING if "\n" not in text]),
    st.lists(st.sampled_from(PLACES), max_size=4),
    st.integers(64, 900),
)
def test_no_named_secret_shows_through_any_structure_or_budget(before, leaking, places, limit):
    """The same for every notation of a name and its value."""
    value: object = f"{before} \n{leaking}"
    for place in places:
        value = place(value)
    data = described({"v": value}, limit)
    assert CANARY not in data


@THOROUGH
@given(st.text(st.sampled_from("ab:=\"'` \\{}[]()<>-_/@.,;&%3D\npaswordtken"), max_size=200))
@example("password" * 20 + "=" * 20)
@example("\\" * 100 + '"' * 50)
def test_what_the_search_finds_the_quick_look_has_seen(text):
    """For arbitrary text, clean by the quick look means that there is nothing to hide."""
    if REDACTION.are_clean([text, "and more"]):
        assert REDACTION.spans(text) == []
    spans = REDACTION.spans(text)
    for one, following in itertools.pairwise(spans):
        assert one.end <= following.start


# --- the redactor -----------------------------------------------------------------------------------


def shown_by(redactor, value, limit=16_384):
    policy = ContentPolicy(redactor=redactor, max_attribute_bytes=limit)
    return json.loads(policy.document("state", value).value)


def test_the_redactor_is_asked_about_every_value_with_its_path():
    """Paths name keys and indexes; values are those left by the patterns."""
    asked = []

    def redactor(path, value):
        asked.append((path, value))
        return value

    value = {"a": [1, {"b": "password=x"}], "password": "never asked"}
    assert shown_by(redactor, value) == {"a": [1, {"b": f"password={MARKER}"}], "password": MARKER}
    assert asked == [
        ("state", value),
        ("state.a", value["a"]),
        ("state.a[0]", 1),
        ("state.a[1]", {"b": "password=x"}),
        ("state.a[1].b", f"password={MARKER}"),
    ]


def test_what_the_redactor_returns_is_shown():
    """It may change a value, put another type in its place, or hide a whole branch."""

    def redactor(path, value):
        if path == "state.user":
            return {"id": value["id"]}
        if path.endswith(".mail"):
            return "m***"
        return None if path == "state.n" else value

    assert shown_by(redactor, {"user": {"id": 1, "iban": "x"}, "mail": "a@b", "n": 5}) == {
        "user": {"id": 1},
        "mail": "m***",
        "n": None,
    }


def test_patterns_apply_to_what_the_redactor_puts_in_place():
    """A container that it returns is searched like any other."""
    assert shown_by(
        lambda path, value: {"password": "x"} if path == "state.v" else value, {"v": 1}
    ) == {"v": {"password": MARKER}}


@pytest.mark.parametrize("error", [ValueError, SystemExit, RecursionError])
def test_a_redactor_that_fails_hides_the_value(error):
    """Nothing leaks and nothing is raised when the user's function has a bug."""

    def redactor(path, value):
        if path == "state":
            return value
        raise error(value)

    assert shown_by(redactor, {"a": CANARY, "b": [CANARY], "c": 5}) == {
        "a": MARKER,
        "b": MARKER,
        "c": MARKER,
    }


def test_a_text_that_the_redactor_turns_into_something_odd_is_hidden():
    """Only texts and plain values can stand for a text."""
    assert shown_by(lambda path, value: [value] if value == CANARY else value, {"a": CANARY}) == {
        "a": MARKER
    }


@pytest.mark.one_python
def test_the_redactor_sees_a_text_beyond_the_cut():
    """A mail address that the cut would split is known to the user's pattern too."""
    mail = re.compile(r"\S+@\S+\.com")

    def redactor(_path, value):
        return mail.sub("<mail>", value) if isinstance(value, str) else value

    for before in range(60, 110):
        shown = shown_by(
            redactor, {"v": "x " * (before // 2) + "alice.somebody@example.com " + "y" * 5000}, 150
        )
        assert "alice" not in json.dumps(shown)


# --- hostile texts ----------------------------------------------------------------------------------

BOMBS = [
    "=" * 50_000,
    ":" * 50_000,
    "password=" * 5_000,
    "password:" * 5_000 + '"',
    'password="' * 5_000,
    "'token', '" * 5_000,
    '"token", \\"' * 5_000,
    "password=[" * 5_000,
    "password={" * 5_000 + '"' * 100,
    "\\" * 50_000 + '"',
    'password="' + "\\" * 50_000,
    "eyJ" * 20_000,
    "-eyJ" * 15_000,
    "SG." * 20_000,
    "://" * 20_000,
    "://a:" * 10_000,
    ("://" + "a" * 12) * 4_000,
    "-----BEGIN PRIVATE KEY-----" * 2_000,
    "-----BEGIN " + "A " * 25_000,
    "<a " * 20_000,
    "<a>" * 20_000,
    "</<password>" * 5_000,
    "--password " * 5_000,
    "--" * 25_000,
    "&quot;" * 10_000,
    "password%3D" * 5_000,
    "a%3A" * 12_500,
    "a" * 50_000 + "%3A",
    "://a:" * 10_000 + "@",
    "password:\n - " * 4_000,
    "\\ntoken: " * 5_000,
    "\\n" * 25_000 + "token: x",
    "\u201ctoken\u201d:\u201c" * 5_000,
    "name=a\r\nb" * 5_000,
    "%3" * 25_000,
    "a\n  " * 10_000 + "input_value=",
    "input_value=" * 5_000,
    "name=" * 10_000,
    "name=a value=" * 5_000,
    "password is '" * 5_000,
    "bearer " * 8_000,
    "a b c:" * 8_000,
    "é\uff1a" * 20_000,
    "password: |\n " * 5_000,
    "password=" + " \t" * 25_000,
    "password" + " " * 50_000 + "=x",
    "".join(f"k{number}=" for number in range(10_000)),
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: repr(text[:14]))
def test_no_text_makes_the_search_explode(text):
    """Fifty thousand characters made to defeat the patterns are searched as a whole.

    The slowest text takes 0.3 seconds of this process's own time, and would take half a minute
    with a quadratic pattern; a slow machine has room between.
    """
    began = time.process_time()
    spans = REDACTION.spans(text)
    REDACTION.are_clean([text])
    assert time.process_time() - began < 15
    assert all(one.end <= following.start for one, following in itertools.pairwise(spans))


def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    texts = (patterns.TOKENS, *patterns.SHAPES.values())
    found = [(text[:40], patterns.compiled(text)) for text in texts]
    found += [(each.pattern, each) for form in pairs._FORMS for each in form[1:] if each]
    found += [
        (f"{module.__name__}.{name}", value)
        for module in (pairs, patterns, redact)
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    ]
    found += [(f"yaml {number}", each) for number, pair in enumerate(pairs._YAML) for each in pair]
    found += [(f"closing {quote}", pattern) for quote, pattern in pairs._CLOSING.items()]
    return found


@pytest.mark.parametrize(("name", "pattern"), _patterns(), ids=[name for name, _ in _patterns()])
def test_no_pattern_nests_one_open_repetition_in_another(name, pattern):
    """Such nesting is what makes a search take exponential time."""
    parser = getattr(re, "_parser", None) or __import__("sre_parse")

    def check(items, inside: bool) -> None:
        for operator, argument in items:
            kind = str(operator)
            if kind in ("MAX_REPEAT", "MIN_REPEAT"):
                _least, most, body = argument
                many = most is parser.MAXREPEAT or most > 300
                assert not (many and inside), f"{name}: an open repetition inside of another"
                check(body, inside or many)
            elif kind == "SUBPATTERN":
                check(argument[3], inside)
            elif kind == "BRANCH":
                for branch in argument[1]:
                    check(branch, inside)
            elif kind in ("ASSERT", "ASSERT_NOT"):
                check(argument[1], inside)

    check(parser.parse(pattern.pattern, pattern.flags), inside=False)


def test_random_bytes_are_searched_without_surprise():
    """Noise is left alone, but for what happens to be a secret."""
    noise = random.Random(1)
    for _ in range(200):
        text = "".join(chr(noise.randrange(1, 0x250)) for _ in range(300))
        assert isinstance(REDACTION.text(text), str)
