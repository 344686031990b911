"""Make the board and the triggers of honeycomb.json in a Honeycomb environment.

    HONEYCOMB_API_KEY=... python honeycomb_import.py DATASET [--email you@example.com]

DATASET is the service's name. The key needs the permissions to manage queries and columns, public
boards and triggers. Send some runs first: Honeycomb refuses a query whose columns it has never
seen, and what it refuses is left out and named.
HONEYCOMB_API_ENDPOINT is another address, such as https://api.eu1.honeycomb.io.

A board shows stored queries by id, so queries and their captions are made first, by the API that
https://api-docs.honeycomb.io describes: /1/queries, /1/query_annotations, /1/boards, /1/triggers.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

CONTENT = pathlib.Path(__file__).with_name("honeycomb.json")


class RefusedError(Exception):
    """Honeycomb understands the request and does not accept what it asks for."""


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make something, and return what was made."""
    endpoint = os.environ.get("HONEYCOMB_API_ENDPOINT", "https://api.honeycomb.io")
    request = urllib.request.Request(
        f"{endpoint}{path}",
        json.dumps(body).encode(),
        {"X-Honeycomb-Team": os.environ["HONEYCOMB_API_KEY"], "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        answer = f"{path}: {error.code} {error.read().decode(errors='replace')}"
        if error.code in (400, 422):
            raise RefusedError(answer) from error
        sys.exit(f"honeycomb_import: {answer}")
    except urllib.error.URLError as error:
        sys.exit(f"honeycomb_import: {endpoint}: {error.reason}; see HONEYCOMB_API_ENDPOINT")


def make_panel(dataset: str, panel: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Store a query with its caption, and return the panel that shows it."""
    query = post(f"/1/queries/{dataset}", stored["query"])
    caption = {"name": stored["name"], "description": stored["description"]}
    annotation = post(f"/1/query_annotations/{dataset}", {**caption, "query_id": query["id"]})
    return {
        "type": "query",
        "position": panel["position"],
        "query_panel": {
            "query_id": query["id"],
            "query_annotation_id": annotation["id"],
            "query_style": panel["style"],
        },
    }


def main() -> None:
    """Make everything, and print where the board is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="the name of the service, which names its dataset")
    parser.add_argument("--email", help="who is told when a trigger fires; default: nobody")
    arguments = parser.parse_args()
    if not os.environ.get("HONEYCOMB_API_KEY"):
        sys.exit("honeycomb_import: HONEYCOMB_API_KEY is not set; make a key in the environment")
    content = json.loads(CONTENT.read_text("utf-8"))
    dataset = urllib.parse.quote(arguments.dataset.lower(), safe="")

    panels = []
    for panel in content["board"]["panels"]:
        stored = content["queries"][panel["query"]]
        try:
            panels.append(make_panel(dataset, panel, stored))
        except RefusedError as refused:
            print(f"left out: {stored['name']}: {refused}", file=sys.stderr)
    if not panels:
        sys.exit(f"honeycomb_import: no query was taken; has {arguments.dataset} any spans yet?")
    board = post("/1/boards", {**content["board"], "panels": panels})
    print(f"board: {board.get('links', {}).get('board_url', board['id'])}")

    recipients = [{"type": "email", "target": arguments.email}] if arguments.email else []
    for trigger in content["triggers"]:
        try:
            post(f"/1/triggers/{dataset}", {**trigger, "recipients": recipients})
            print(f"trigger: {trigger['name']}")
        except RefusedError as refused:  # noqa: PERF203  # a few triggers
            print(f"left out: {trigger['name']}: {refused}", file=sys.stderr)


if __name__ == "__main__":
    main()
