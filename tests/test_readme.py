"""The README is true: its settings table is today's, and its Python snippets compile."""

import ast
import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_settings_table_is_up_to_date():
    """Run `python scripts/update_readme.py` when this fails."""
    path = ROOT / "scripts" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.updated(README) == README


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_python_snippets_compile(number):
    """Every Python block of the README is valid Python."""
    ast.parse(textwrap.dedent(SNIPPETS[number]))


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./-]+)\)", README))
def test_links_to_files_lead_somewhere(path):
    """Every relative link of the README names a file of the repo."""
    assert (ROOT / path).exists()
