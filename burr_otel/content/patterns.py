"""Which keys and which texts are secrets: the tables behind `burr_otel.content.redact`.

Every pattern is linear: it starts at a literal or a single character class, its repetitions are
bounded or cannot overlap with what follows them, and none nests one repetition in another.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

MARKER: Final = "[redacted]"

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD: Final = re.compile(r"[^A-Za-z0-9]+")


def snake(key: str) -> str:
    """A key in snake_case, so that one table serves "X-Api-Key", "apiKey" and "API_KEY"."""
    return _NOT_WORD.sub("_", _CAMEL.sub("_", key)).strip("_").lower()


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
  | ^[a-z0-9_]+_(?:counts?|status|types?|usage|limits?|budget|(?:min_|max_)?length|sizes?|valid
      |present|required|requested|enabled|accepted|expired|expir(?:y|ation|es_(?:at|in))|policy
      |strength|methods?|scheme|format|algorithm|ttl|(?:changed|created|updated|rotated|issued)_at)$
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

_WORDS: Final = (
    "a|an|and|are|at|be|but|by|can|could|did|do|does|for|has|have|how|if|in|is|it|its|may|must|my"
    "|no|not|of|on|or|our|please|see|should|so|the|this|that|to|use|was|we|what|when|where|which"
    "|who|why|will|with|would|you|your|their|his|her"
)
FUNCTION_WORD: Final = re.compile(rf"(?:{_WORDS}|bring|chocolate|word)[ ,?]", re.IGNORECASE)
"""How a sentence begins that follows "password:", and no password does."""

_STATUS_WORD: Final = (
    f"(?:{_WORDS}|too|invalid|missing|required|expired|empty|wrong|incorrect|malformed|revoked"
    "|unset|none|null|optional|deprecated|valid|given|used|only|never|always|hidden|being|correct"
    "|secure|stored|sent|needed|about|just|from|called|named|known|hard|easy|out|weak|strong|long"
    "|short|safe|lost|gone|bad|good|over|now|here|there|rejected|denied|refused|reset|changed)"
)


# Each begins with a letter of its own, so that one search finds all of them. The sources are the
# vendors' own pages on their keys, or what they registered with GitHub for secret scanning
# (docs.github.com/code-security/secret-scanning/introduction/supported-secret-scanning-patterns).
TOKEN_FORMATS: Final[tuple[tuple[str, str], ...]] = (
    # --- model providers and tools for agents
    ("OpenAI, DeepSeek, OpenRouter", r"sk-(?=[\w\-]*\d)[\w\-]{13,}"),  # platform.openai.com
    ("Anthropic", r"sk-ant-[\w\-]{10,}"),  # docs.anthropic.com, "API key format"
    ("Groq", r"gsk_[A-Za-z0-9]{16,}"),  # console.groq.com
    ("Hugging Face", r"hf_[A-Za-z0-9]{16,}"),  # huggingface.co/docs/hub/security-tokens
    ("Hugging Face organisation", r"api_org_[A-Za-z0-9]{16,}"),
    ("Replicate", r"r8_[A-Za-z0-9]{16,}"),  # replicate.com/docs
    ("Perplexity", r"pplx-[A-Za-z0-9]{16,}"),  # docs.perplexity.ai
    ("xAI", r"xai-[A-Za-z0-9]{16,}"),  # docs.x.ai
    ("Fireworks", r"fw_[A-Za-z0-9]{20,}"),  # docs.fireworks.ai
    ("Together", r"tgp_v1_[\w\-]{16,}"),  # docs.together.ai
    ("Cerebras", r"csk-[a-z0-9]{20,}"),  # inference-docs.cerebras.ai
    ("NVIDIA", r"nvapi-[\w\-]{20,}"),  # build.nvidia.com
    ("Voyage AI", r"pa-[\w\-]{40,}"),  # docs.voyageai.com
    ("Jina AI", r"jina_[A-Za-z0-9]{30,}"),  # jina.ai
    ("LangSmith", r"lsv2_\w{12,}"),  # docs.smith.langchain.com
    ("Langfuse", r"sk-lf-[a-f0-9\-]{12,}"),  # langfuse.com/docs
    ("Langfuse, public", r"pk-lf-[a-f0-9\-]{12,}"),
    ("Logfire", r"pylf_v\d_\w{20,}"),  # logfire.pydantic.dev
    ("Weights & Biases", r"wandb_v\d_\w{20,}"),  # docs.wandb.ai
    ("Pinecone", r"pcsk_\w{20,}"),  # docs.pinecone.io
    ("Tavily", r"tvly-[\w\-]{16,}"),  # docs.tavily.com
    ("Firecrawl", r"fc-[a-f0-9]{32}"),  # docs.firecrawl.dev
    ("E2B", r"e2b_[a-f0-9]{30,}"),  # e2b.dev/docs
    ("ElevenLabs", r"sk_[a-f0-9]{40,}"),  # elevenlabs.io/docs
    ("Databricks", r"dapi[a-f0-9]{32}"),  # docs.databricks.com, personal access tokens
    # --- clouds and hosting
    ("AWS key id", r"A(?:KIA|SIA|GPA|ROA|IDA|NPA|NVA)[A-Z0-9]{12,}"),  # IAM guide, unique ids
    ("AWS Bedrock", r"ABSK[A-Za-z0-9+/]{40,}={0,2}"),  # docs.aws.amazon.com/bedrock
    ("Fly.io", r"fm[12][a-z]?_[\w+/\-]{40,}={0,2}"),  # fly.io/docs/security/tokens
    ("Google API", r"AIza[\w\-]{20,}"),  # cloud.google.com/docs/authentication/api-keys
    ("Google OAuth", r"ya29\.[\w\-.]{12,}"),  # developers.google.com/identity
    ("Google OAuth client", r"GOCSPX-[\w\-]{20,}"),
    ("Alibaba Cloud", r"LTAI[A-Za-z0-9]{12,}"),  # alibabacloud.com/help/ram
    ("DigitalOcean", r"do[opr]_v1_[a-f0-9]{12,}"),  # docs.digitalocean.com/reference/api
    ("Heroku", r"HRKU-[\w\-]{30,}"),  # devcenter.heroku.com
    ("Vercel", r"vc[piark]_[A-Za-z0-9]{20,}"),  # vercel.com/docs
    ("Netlify", r"nfp_[A-Za-z0-9]{30,}"),  # docs.netlify.com
    ("Render", r"rnd_[A-Za-z0-9]{20,}"),  # render.com/docs/api
    ("Doppler", r"dp\.(?:pt|st|sa|ct|scim|audit)\.[\w.\-]{30,}"),  # docs.doppler.com
    ("HashiCorp Vault", r"hv[sbr]\.[\w\-]{20,}"),  # developer.hashicorp.com/vault/docs
    ("1Password", r"ops_eyJ[\w\-]{40,}"),  # developer.1password.com
    ("Pulumi", r"pul-[a-f0-9]{40}"),  # pulumi.com/docs
    ("Tailscale", r"tskey-[a-z]{2,10}-[\w\-]{16,}"),  # tailscale.com/kb
    # --- source hosts, registries and CI
    ("GitHub", r"gh[pousr]_[A-Za-z0-9]{12,}"),  # github.blog, "authentication token formats"
    ("GitHub, fine-grained", r"github_pat_\w{8,}"),
    ("GitLab", r"gl(?:pat|dt|rt|ptt|cbt|ft|soat|agent|oas|imt)-[\w\-]{12,}"),  # docs.gitlab.com
    ("Atlassian", r"AT(?:ATT|CTT)3[\w\-]{20,}"),  # support.atlassian.com
    ("Bitbucket", r"ATBB[A-Za-z0-9]{20,}"),
    ("npm", r"npm_[A-Za-z0-9]{20,}"),  # github.blog, npm access token format
    ("PyPI", r"pypi-[\w\-]{20,}"),  # PyPI's help, API tokens
    ("RubyGems", r"rubygems_[a-f0-9]{30,}"),  # RubyGems' guides, API keys
    ("Cargo", r"cio[A-Za-z0-9]{32}"),  # tokens of the registry of Rust
    ("Docker Hub", r"dckr_[po]at_[\w\-]{20,}"),  # docs.docker.com
    ("NuGet", r"oy2[a-z0-9]{43}"),  # learn.microsoft.com/nuget
    ("SonarQube", r"sq[pua]_[a-f0-9]{40}"),  # docs.sonarsource.com
    ("CircleCI", r"CCI(?:PAT|PRJ)_[\w\-]{20,}"),  # circleci.com/docs
    ("Postman", r"PMAK-[a-f0-9\-]{20,}"),  # learning.postman.com
    # --- chat, mail and office
    ("Slack", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9\-]{11,}"),  # api.slack.com/authentication
    ("Slack app", r"xapp-[A-Za-z0-9\-]{11,}"),
    ("Discord bot", r"M[\w\-]{23,27}\.[\w\-]{6}\.[\w\-]{27,}"),  # discord.com/developers
    ("Twilio", r"SK[a-f0-9]{32}"),  # twilio.com/docs/iam/api-keys
    ("SendGrid", r"SG\.[\w\-]{10,128}\.[\w\-]{8,}"),  # twilio.com/docs/sendgrid
    ("Mailgun", r"key-[a-f0-9]{32}"),  # documentation.mailgun.com
    ("Brevo", r"xkeysib-[a-f0-9\-]{30,}"),  # developers.brevo.com
    ("Resend", r"re_[A-Za-z0-9]{6,10}_[A-Za-z0-9]{16,}"),  # resend.com/docs
    ("Notion", r"ntn_[A-Za-z0-9]{30,}"),  # developers.notion.com
    ("Notion, Stripe and others", r"secret_[A-Za-z0-9]{30,}"),
    ("Linear", r"lin_(?:api|oauth)_[A-Za-z0-9]{20,}"),  # linear.app/developers
    ("Airtable", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{40,}"),  # airtable.com/developers
    ("Figma", r"figd_[\w\-]{20,}"),  # figma.com/developers
    ("HubSpot", r"pat-(?:na|eu)\d-[a-f0-9\-]{30,}"),  # developers.hubspot.com
    ("Dropbox", r"sl\.[\w\-]{60,}"),  # developers.dropbox.com
    # --- databases
    ("Supabase", r"sb(?:p_[a-f0-9]{40}|_secret_[\w\-]{16,})"),  # supabase.com/docs/guides/api
    ("MongoDB Atlas", r"mdb_sa_sk_[\w\-]{20,}"),  # mongodb.com/docs/atlas
    ("PlanetScale", r"pscale_(?:pw|tkn|oauth)_[\w\-.]{20,}"),  # planetscale.com/docs
    ("Neon", r"napi_[a-z0-9]{30,}"),  # neon.com/docs
    ("CockroachDB", r"CCDB1_[A-Za-z0-9]{16,}_?[A-Za-z0-9]*"),  # cockroachlabs.com/docs
    # --- monitoring
    ("Grafana", r"gl(?:sa_[A-Za-z0-9]{20,}|c_[A-Za-z0-9+/]{30,}={0,2})"),  # grafana.com/docs
    ("Sentry", r"sntry[su]_[\w+/\-]{20,}={0,2}"),  # docs.sentry.io
    ("Honeycomb", r"hc[a-z](?:ik|mk|lk)_[a-z0-9]{20,}"),  # docs.honeycomb.io
    ("New Relic", r"NR(?:AK|II|JS|AL)-[\w\-]{15,}"),  # docs.newrelic.com
    ("Dynatrace", r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{40,}"),  # docs.dynatrace.com
    ("PostHog", r"ph[xs]_\w{30,}"),  # posthog.com/docs
    ("LaunchDarkly", r"sdk-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9\-]{20,}"),  # docs.launchdarkly.com
    ("Mapbox", r"sk\.eyJ[\w\-]{20,}\.[\w\-]{16,}"),  # docs.mapbox.com
    # --- payment and shops
    ("Stripe", r"sk_(?:live|test)_[A-Za-z0-9]{8,}"),  # docs.stripe.com/keys
    ("Stripe, restricted", r"rk_(?:live|test)_[A-Za-z0-9]{8,}"),
    ("Stripe, publishable", r"pk_(?:live|test)_[A-Za-z0-9]{8,}"),
    ("Stripe webhook", r"whsec_[A-Za-z0-9]{12,}"),
    ("Square", r"sq0[a-z]{3}-[\w\-]{20,}"),  # developer.squareup.com
    ("Shopify", r"shp(?:at|ss|ca|pa)_[a-fA-F0-9]{12,}"),  # shopify.dev/changelog, token format
    ("Razorpay", r"rzp_(?:live|test)_[A-Za-z0-9]{10,}"),  # razorpay.com/docs
    ("Flutterwave", r"FLWSECK(?:_TEST)?-[A-Za-z0-9\-]{12,}"),  # developer.flutterwave.com
    ("Plaid", r"access-(?:sandbox|development|production)-[a-f0-9\-]{30,}"),  # plaid.com/docs
    # --- of no single vendor
    ("JSON web token", r"eyJ[\w\-]{8,1024}\.[\w\-]{4,}(?:\.[\w\-]*)?"),  # RFC 7519
    ("age", r"AGE-SECRET-KEY-1[A-Z0-9]{8,}"),  # age-encryption.org
)
"""Keys of services that are known by how they begin: name and regular expression."""


def _one_pattern(formats: tuple[tuple[str, str], ...]) -> str:
    """One pattern for all formats, which looks at a first letter once."""
    by_letter: dict[str, list[str]] = {}
    for _, pattern in sorted(formats, key=lambda row: -len(row[1].partition("[")[0])):
        by_letter.setdefault(pattern[0], []).append(pattern[1:])
    parts = (f"{letter}(?:{'|'.join(rest)})" for letter, rest in by_letter.items())
    return rf"(?a:[^A-Za-z0-9]({'|'.join(parts)}))"


_USERINFO: Final = r"[^\s:@/?#\"'<>]"


class Hidden(NamedTuple):
    """A part of a text that is to be hidden, and what stands in its place."""

    start: int
    end: int
    shown: str = MARKER


compiled = functools.cache(re.compile)
"""A pattern, compiled when first asked for: that of `TOKENS` takes its time."""

SHAPES: Final = {
    "PRIVATE KEY": (
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"[\s\S]*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)"
    ),
    "earer ": r"\b[Bb]earer {1,4}(?!tokens?\b|auth)([\w.~+/=\-]{6,})",
    "asic ": r"\b[Bb]asic {1,4}(?!auth|access|http)([A-Za-z0-9+/]{12,}={0,2})",
    "@": (  # user and password in a URL
        rf"://((?:{_USERINFO}{{0,128}}:(?!\d{{1,5}}[/?#])|(?={_USERINFO}{{12}}))"
        r"(?:[^\s@\"'<>:]|:(?!//)){1,512})@"
    ),
    "-u": r"(?<![^\s\0])(?:-u|--user) {1,2}[\"']?([^\s:\"']{1,128}:[^\s\"']+)",  # of curl
    # SQL
    "IDENTIFIED|identified": r"(?i:\bidentified (?:with [\w'\"]{1,40} )?by )([\"'][^\"']{1,512})",
    "hook": (
        r"(?:hooks\.slack\.com/(?:services|workflows)/|/api/webhooks/|webhook\.office\.com/)"
        r"([^\s\"'<>]{8,})"
    ),
    "assw|assphr|oken |ecret |PASSWO|PI key": (  # prose
        r"\b(?i:pass(?:word|wd|phrase)|secret|token|api key)(?i:s)? "
        rf"(?:(?i:is|was) (?!(?i:{_STATUS_WORD})\b)(?=[^\s\"'`]{{4}})|(?i:is |was )?(?=[\"'`]))"
        r"([\"'`][^\"'`]{1,512}|[^\s\"'`]{4,})"
    ),
    "~": r"(?<![\w~.])[\w~.]{3}\dQ~[\w~.\-]{31,34}",  # Azure, client secret
    ":AA": r"(?<!\d)\d{8,10}:AA[\w\-]{30,}",  # Telegram bot
    "$": r"access_token\$\w{4,20}\$[\w$]{16,}",  # Braintree
}
"""Secrets that are known by a form of their own: group 1 of a pattern, or all that it matches.

One of the texts before it, apart by "|", must occur for the pattern to match.
"""

TOKENS: Final = _one_pattern(TOKEN_FORMATS)

_Form = TypeVar("_Form", bound=tuple[Any, ...])
_RAREST_FIRST: Final = "zqjxkvbywgpfmucdlhrsnioate "


def by_needle(forms: Iterable[_Form]) -> list[tuple[str, str, _Form]]:
    """A row for each needle of each form, behind its rarest character: that is found sooner."""
    rows = [(each, form) for form in forms for each in form[0].split("|")]
    return [(min(needle, key=_RAREST_FIRST.find), needle, form) for needle, form in rows]


_SHAPES_BY_NEEDLE: Final = by_needle(SHAPES.items())
# Every token has at least so many letters, digits and signs in a row.
_RUN: Final = b"x" * 16
_RUN_BYTES: Final = bytes(
    ord("x") if byte < 128 and (chr(byte).isalnum() or chr(byte) in "_-.+/") else ord(" ")  # noqa: PLR2004
    for byte in range(256)
)


def matches(pattern: re.Pattern[str], text: str) -> Iterator[Hidden]:
    """What a pattern finds: its group 1, if there is one."""
    for match in pattern.finditer(text):
        start, end = match.span(1) if pattern.groups and match[1] is not None else match.span()
        if end > start:
            yield Hidden(start, end)


def known_forms(text: str) -> Iterator[Hidden]:
    """Each secret that is known by its form."""
    for sign, needle, (_, pattern) in _SHAPES_BY_NEEDLE:
        if sign in text and needle in text:
            yield from matches(compiled(pattern), text)
    text = f" {text}"  # what stands before a token belongs to the pattern: that is quicker
    runs = text.encode("ascii", "replace").translate(_RUN_BYTES)
    start = runs.find(_RUN)
    tokens = compiled(TOKENS)
    while start >= 0:
        end = runs.find(b" ", start)
        end = len(text) if end < 0 else end
        match = tokens.search(text, start - 1, end + 2)  # some end in "=="
        while match is not None:
            yield Hidden(match.start(1) - 1, match.end(1) - 1)
            match = tokens.search(text, match.end(), end + 2)
        start = runs.find(_RUN, end)
