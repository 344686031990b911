"""The fenced blocks of README and docs, and the comments that say how each is tested."""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "dashboards/README.md",
    "examples/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>tested|not run): (?P<why>.+?) -->\n)?"
    r"^```(?P<language>\S*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        page: Path of the page.
        line: Where the block begins.
        language: The word after the backticks.
        code: What stands in it.
        tested: The test that runs it, where it is not tests/test_snippets.py.
        not_run: Why nothing runs it.
    """

    page: str
    line: int
    language: str
    code: str
    tested: str | None
    not_run: str | None

    @property
    def elsewhere(self) -> bool:
        return bool(self.tested or self.not_run)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets() -> list[Snippet]:
    """All blocks of all pages."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for match in _BLOCK.finditer(text):
            marker, why = match["marker"], match["why"]
            found.append(
                Snippet(
                    page,
                    text.count("\n", 0, match.start("language")) + 1,
                    match["language"],
                    match["code"],
                    why if marker == "tested" else None,
                    why if marker == "not run" else None,
                )
            )
    return found
