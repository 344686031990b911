"""A real Prometheus that scrapes one address, with the rules of this repository."""

from __future__ import annotations

import json
import os
import pathlib
import re
import urllib.parse
import urllib.request
from typing import Any

from processes import Server, free_ports

DASHBOARDS = pathlib.Path(__file__).resolve().parents[2] / "dashboards"
RULES = DASHBOARDS / "prometheus-rules.yaml"


def hurried(query: str) -> str:
    """A query or rules with each stretch of time made five seconds: a test has no hour."""
    return re.sub(r"\b\d+[mhd]\b", "5s", query)


class Prometheus:
    """One Prometheus; its rules look at the last seconds instead of minutes."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, scraped: str) -> None:
        [port] = free_ports(1)
        self.address = f"http://127.0.0.1:{port}"
        (folder / "rules.yaml").write_text(hurried(RULES.read_text("utf-8")))
        configuration = folder / "prometheus.yml"
        configuration.write_text(
            "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
            "rule_files: [rules.yaml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: burr, static_configs: [{{targets: ['{scraped}']}}]}}\n"
        )
        self.server = Server(
            "prometheus",
            [
                binary,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={os.fspath(folder / 'data')}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            health_url=f"{self.address}/-/ready",
            folder=folder,
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        return self._get("query", {"query": expression})["result"]

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with their health and, of alerts, their state."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def _get(self, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]
