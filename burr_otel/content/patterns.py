"""Which keys and which texts are secrets: the tables behind `burr_otel.content.redact`.

Every pattern is linear: it starts at a literal or a single character class, its repetitions are
bounded or cannot overlap with what follows them, and none nests one repetition in another.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = [
    "HARMLESS_KEY",
    "LINE_KEY",
    "NAME_KEYS",
    "PHRASE_KEY",
    "SECRET_KEY",
    "SECRET_STEM",
    "SHAPES",
    "VALUE_KEYS",
    "Shape",
    "may_have_shape",
]

# Keys are compared in snake_case: "X-Api-Key", "apiKey" and "API_KEY" are all "api_key".

SECRET_KEY: Final = re.compile(
    r"""
    pass_?w(?:or)?[dt] | pass_?phrase | pass_?code | ^pass$ | (?:^|_)pw$ | (?:^|_)pword$
  | kennwort | mot_?de_?passe | contrase(?:n|_)?a$ | (?:^|_)senha$ | security_answer
  | (?:^|_|sql|user|db)pwd(?:_|$) | mnemonic | (?:seed|recovery)_?phrase
  | (?:db|database|user|smtp|imap|mail|mysql|pg|redis|mongo|ftp|admin|root|login|basic)_?pass(?:_|$)
  | secret
  | api_?keys?(?:_|$|[0-9]) | api_?key | app_?key
  | (?:access|account|admin|auth|client|consumer|deploy|encryption|host|jwt|license|master|private
      |project|secret|server|service|session|shared|signing|ssh|storage|subscription|webhook
      |openai|anthropic|azure|google|aws|hmac|rsa)_?keys?(?:_|$)
  | authori[sz]ation | aspxauth | (?:^|_)auth(?:_(?:header|headers|data|info|key|code|string))?$
  | credential | cookie | bearer
  | (?:^|_)token(?:_(?:value|string|data|hash|secret|file|[0-9]+))?$
  | (?:access|api|auth|bearer|bot|client|csrf|device|github|gitlab|hf|id|login|oauth|push|refresh
      |secret|security|session|slack|user|xsrf)_?tokens?(?:_(?:value|string|data|hash|v?[0-9]+))?$
  | (?:^|_)jwts?(?:_|$) | csrf | xsrf | sess(?:ion)?_?(?:secret|cookie) | sess_?id$ | connect_sid
  | (?:^|_)j?sessionid$ | asp_net_session_?id
  | (?:^|_)(?:ssn|cvv|cvc|otp|totp|pin)(?:_?code)?$
  | social_?security | credit_?card | card_?number | (?:^|_)cc_?num(?:ber)?$ | mfa_?code
  | x_amz_(?:signature|credential)
  | (?:^|_)sig$ | webhook_?url | client_?assertion$ | priv_?key | honeycomb_team$
  | conn(?:ection)?_?str(?:ing)?(?:_|$)
    """,
    re.VERBOSE,
)
"""What makes a snake_case key the name of a secret."""

SECRET_STEM: Final = re.compile(
    "pass|pwd|pw$|pw\n|secret|key|auth|credential|cookie|bearer|token|jwt|csrf|xsrf|sess|sid|ssn|cvv|cvc"
    "|otp|pin|social|card|amz|sig|webhook|mnemonic|phrase|conn|kennwort|contrase|senha|answer|pword"
    "|cc.?num|mfa|assertion|honeycomb|priv.?key"
)
"""Part of every lower-case key that `SECRET_KEY` or `PHRASE_KEY` finds, words joined or not."""

HARMLESS_KEY: Final = re.compile(
    r"""
    secretar(?:y|ies|iat) | secretion | cookie_(?:consent|policy|banner|notice|recipe)s?
  | (?:^|_)(?:max|min|num|n|per|first|last|next|prev|previous|pad|eos|bos|unk|mask|stop|sep|cls
      |special|total|prompt|completion|input|output|cached?|reasoning|new|each)_token(?=_|$)
  | password_(?:policy|strength|length|min_length|max_length|required|expired|changed_at)
  | credential_type | credentials_type
    """,
    re.VERBOSE,
)
"""Parts of a key that look like `SECRET_KEY` and are not; they are taken out before it is asked."""

PHRASE_KEY: Final = re.compile(
    r"""
    pass_?w(?:or)?[dt] | pass_?phrase | pass_?code | api_?key | client_secret | connection_string
  | (?:private|access|secret|signing|encryption|account|session|service|shared)_key
  | (?:access|auth|bearer|refresh|session|api|secret|security|bot)_token
    """,
    re.VERBOSE,
)
"""The same for the last words before a colon in prose ("the API key is: ..."): fewer of them."""

LINE_KEY: Final = re.compile(r"authorization|cookie|(?:^|_)auth(?:_|$)|phrase|mnemonic")
"""Keys whose bare value is the rest of the line (``Cookie: a=b; c=d``)."""


NAME_KEYS: Final = frozenset(("name", "key", "header", "field", "Name", "Key"))
VALUE_KEYS: Final = frozenset(("value", "values", "Value"))
"""``{"name": "password", "value": "x"}``: a dict that spells out a name and its value."""


class Shape(NamedTuple):
    """A secret that is known by its own form.

    Attributes:
        name: What it is, for people who read the table.
        needles: Texts of which one must occur for the pattern to match; none: an unbroken run of
            `_TOKEN_RUN` letters, digits, "_", "-" and "." must.
        pattern: What to hide: its group 1, when there is one, else the whole match.
    """

    name: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]


_TOKEN_RUN: Final = 16
_STATUS_WORD: Final = (
    "(?:not|too|invalid|missing|required|expired|empty|wrong|incorrect|malformed|revoked|unset"
    "|none|null|optional|deprecated|valid|given|that|this|used|only|never|always|hidden|being"
    "|correct|secure|stored|sent|needed|about|just|what|when|where|your|their|from)"
)
_USERINFO: Final = r"[^\s:@/?#\"'<>]"

SHAPES: Final[tuple[Shape, ...]] = (
    Shape(
        "private key block",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"[\s\S]*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)"
        ),
    ),
    Shape(
        "bearer token",
        ("earer ",),
        re.compile(r"\b[Bb]earer {1,4}(?!tokens?\b|auth)([\w.~+/=\-]{6,})"),
    ),
    Shape(
        "basic credentials",
        ("asic ",),
        re.compile(r"\b[Bb]asic {1,4}(?!auth|access|http)([A-Za-z0-9+/]{12,}={0,2})"),
    ),
    Shape(
        "user and password in a URL",
        ("@",),
        re.compile(
            rf"://((?:{_USERINFO}{{0,128}}:(?!\d{{1,5}}[/?#])|(?={_USERINFO}{{12}}))"
            r"(?:[^\s@\"'<>:]|:(?!//)){1,512})@"
        ),
    ),
    Shape(
        "user and password of curl",
        ("-u",),
        re.compile(r"(?<![^\s\0])(?:-u|--user) {1,2}[\"']?([^\s:\"']{1,128}:[^\s\"']+)"),
    ),
    Shape(
        "password in SQL",
        ("IDENTIFIED", "identified"),
        re.compile(r"\bidentified (?:with [\w'\"]{1,40} )?by ([\"'][^\"']{1,512})", re.IGNORECASE),
    ),
    Shape(
        "webhook address",
        ("hook",),
        re.compile(
            r"(?:hooks\.slack\.com/(?:services|workflows)/|/api/webhooks/|webhook\.office\.com/)"
            r"([^\s\"'<>]{8,})"
        ),
    ),
    Shape(
        "secret named in prose",
        ("assw", "assphr", "oken ", "ecret ", "PASSWO", "PI key"),
        re.compile(
            r"\b(?:pass(?:word|wd|phrase)|secret|token|api key)s? "
            rf"(?:(?:is|was) (?!{_STATUS_WORD}\b)(?=[^\s\"'`]{{4}})|(?:is |was )?(?=[\"'`]))"
            r"([\"'`][^\"'`]{1,512}|[^\s\"'`]{4,})",
            re.IGNORECASE,
        ),
    ),
    Shape(
        "vendor token",
        (),
        re.compile(
            r"""(?<![A-Za-z0-9])(?:
                sk-[A-Za-z0-9_\-]{13,} | (?:sk|pk)-lf-[a-f0-9\-]{12,}
              | (?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,} | whsec_[A-Za-z0-9]{12,}
              | (?:AKIA|ASIA|AGPA|AROA|AIDA|ANPA|ANVA)[A-Z0-9]{12,}
              | eyJ[A-Za-z0-9_\-]{8,1024}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?
              | gh[pousr]_[A-Za-z0-9]{12,} | github_pat_[A-Za-z0-9_]{8,}
              | glpat-[A-Za-z0-9_\-]{12,} | dop_v1_[a-f0-9]{12,}
              | xox[a-z]-[A-Za-z0-9\-]{11,} | xapp-[A-Za-z0-9\-]{11,}
              | AIza[A-Za-z0-9_\-]{20,} | ya29\.[A-Za-z0-9_\-.]{12,}
              | hf_[A-Za-z0-9]{16,} | npm_[A-Za-z0-9]{20,} | pypi-[A-Za-z0-9_\-]{20,}
              | SG\.[A-Za-z0-9_\-]{10,128}\.[A-Za-z0-9_\-]{8,} | gsk_[A-Za-z0-9]{16,}
              | lsv2_[A-Za-z0-9_]{12,} | r8_[A-Za-z0-9]{16,} | pplx-[A-Za-z0-9]{16,}
              | xai-[A-Za-z0-9]{16,} | shp(?:at|ss|ca|pa)_[a-fA-F0-9]{12,}
              | AGE-SECRET-KEY-1[A-Z0-9]{8,}
            )""",
            re.VERBOSE,
        ),
    ),
)
"""The built-in value patterns."""

_COMMON: Final = frozenset(" etaoinsrhldcumfpgwybvkxjqz")
_NEEDLES: Final = tuple(needle for shape in SHAPES for needle in shape.needles)
# With the signs of each needle that are rare, or all of them.
_BY_SIGNS: Final = tuple(
    (frozenset(needle) - _COMMON or frozenset(needle), needle, shape.pattern)
    for shape in SHAPES
    for needle in shape.needles
)
_SHORT: Final = 1024  # characters
_BY_RUN: Final = tuple(shape for shape in SHAPES if not shape.needles)
_TOKEN_BYTES: Final = bytes(
    ord("x") if byte < 128 and (chr(byte).isalnum() or chr(byte) in "_-.") else ord(" ")  # noqa: PLR2004
    for byte in range(256)
)
_RUN: Final = b"x" * _TOKEN_RUN
_MOST_RUNS: Final = 16  # that are searched one by one; of more, the text is searched as a whole


def may_have_shape(text: str) -> bool:
    """Whether a text could hold a secret of a known form; cheap, and never wrongly no."""
    # Few texts have a needle, and asking for all of them is quick where there is little to search.
    if len(text) > _SHORT or any(map(text.__contains__, _NEEDLES)):
        for signs, needle, pattern in _BY_SIGNS:
            # A single character is found, or missed, thirty times as fast.
            if all(map(text.__contains__, signs)) and needle in text and pattern.search(text):
                return True
    data = text.encode("utf-8", "replace")
    classes = data.translate(_TOKEN_BYTES)
    start = classes.find(_RUN)
    for _ in range(_MOST_RUNS):
        if start < 0:
            return False
        end = classes.find(b" ", start)
        run = data[start : end if end >= 0 else len(data)].decode()
        if any(shape.pattern.search(run) for shape in _BY_RUN):
            return True
        start = classes.find(_RUN, start + len(run))
    return any(shape.pattern.search(text) for shape in _BY_RUN)
