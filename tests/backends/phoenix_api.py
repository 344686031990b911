"""A real Phoenix: started on loopback with everything off that would call home, and read back."""

from __future__ import annotations

import json
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from processes import Server, free_ports, wait_for


class Phoenix:
    """One Phoenix with its own database folder."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path) -> None:
        self.port, grpc_port = free_ports(2)
        self.grpc_endpoint = f"http://127.0.0.1:{grpc_port}"
        self.http_endpoint = f"http://127.0.0.1:{self.port}"
        self.server = Server(
            "phoenix",
            [binary, "serve"],
            health_url=f"{self.http_endpoint}/healthz",
            folder=folder,
            env={
                "HOME": os.fspath(folder),
                "PHOENIX_HOST": "127.0.0.1",
                "PHOENIX_PORT": str(self.port),
                "PHOENIX_GRPC_PORT": str(grpc_port),
                "PHOENIX_WORKING_DIR": os.fspath(folder),
                "PHOENIX_TELEMETRY_ENABLED": "false",
                "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
                "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
            },
        )

    def spans(
        self, trace_id: int, *, count: int, project: str = "default", timeout_s: float = 120.0
    ) -> list[dict[str, Any]]:
        """The trace's spans by start time, once there are at least `count`."""
        query = urllib.parse.urlencode({"trace_id": f"{trace_id:032x}", "limit": 1000})
        url = f"{self.http_endpoint}/v1/projects/{urllib.parse.quote(project)}/spans?{query}"

        def probe() -> list[dict[str, Any]] | None:
            try:
                with urllib.request.urlopen(url, timeout=30) as response:
                    found = json.load(response)["data"]
            except urllib.error.HTTPError as error:
                if error.code == 404:  # the project appears with its first span
                    return None
                raise
            return found if len(found) >= count else None

        found = wait_for(f"{count} spans of trace {trace_id:032x} in Phoenix", probe, timeout_s)
        return sorted(found, key=lambda span: (span["start_time"], span["end_time"]))
