"""Write the table of docs/settings.md from `OtelConfig`; a test fails when it is stale."""

import dataclasses
import sys
from pathlib import Path

from burr_otel.config import ENV_PREFIX, OtelConfig

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def settings_table() -> str:
    """The table as Markdown."""
    rows = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(OtelConfig):
        variable = f"`{ENV_PREFIX}{field.name.upper()}`" if field.metadata.get("env", True) else ""
        default = "none" if field.default is None else field.default
        default = str(default).lower() if isinstance(default, bool) else default
        default = "(none)" if default == () else default
        rows.append(f"| `{field.name}` | {variable} | `{default}` | {field.metadata['doc']} |")
    return "\n".join(rows)


def updated(text: str) -> str:
    """The page with the table of today."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{settings_table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
    sys.stdout.write("docs/settings.md is up to date\n")
