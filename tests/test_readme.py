"""README and docs are true: the settings table is today's, links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

import burr_otel

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "dashboards" / "README.md",
        ROOT / "examples" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
LINKS = [
    (page, link)
    for page, text in PAGES.items()
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)
]


def test_the_settings_table_is_up_to_date():
    """Run `python scripts/update_settings.py` when this fails."""
    path = ROOT / "scripts" / "update_settings.py"
    spec = importlib.util.spec_from_file_location("update_settings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.updated(PAGES["docs/settings.md"]) == PAGES["docs/settings.md"]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page, link):
    """Every relative link names a file of the repo, and a heading that is in it."""
    path, _, heading = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if heading:
        assert heading in anchors(target.read_text("utf-8"))


def anchors(text):
    """What the headings of a page can be linked by."""
    outside_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", outside_code, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"README.md"}))
def test_every_page_is_reached_from_the_readme(page):
    """A page that the README does not name is not found."""
    assert f"]({page})" in PAGES["README.md"]


def test_the_site_has_every_page_and_every_public_name():
    """What is public is in the API reference; a page that the navigation lacks is not found."""
    api = (ROOT / "website" / "api.md").read_text("utf-8")
    names = {f"burr_otel.{name}" for name in burr_otel.__all__ if not name.startswith("_")}
    assert names <= set(re.findall(r"^::: (\S+)$", api, re.MULTILINE))
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [page for page in PAGES if f": {page}\n" not in navigation] == []


def test_the_site_links_to_the_pages_where_they_stand():
    """A page that the site has a copy of would grow old there."""
    found = [path for path in (ROOT / "website").rglob("*") if not path.is_dir()]
    assert {path.name for path in found if not path.is_symlink()} == {"api.md", "site.css"}
    assert all(path.resolve().exists() for path in found)
