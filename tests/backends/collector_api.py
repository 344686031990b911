"""A real collector that runs the configurations of this repository, unchanged."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence

from processes import Server, free_ports, wait_for

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BASE_CONFIG = REPOSITORY / "collector-config.yaml"
HONEYCOMB_OVERLAY = REPOSITORY / "collector-config-honeycomb.yaml"
AGENT_OVERLAY = REPOSITORY / "collector-config-agent.yaml"
GATEWAY_OVERLAY = REPOSITORY / "collector-config-gateway.yaml"


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where one collector listens, all on 127.0.0.1."""

    grpc: int
    http: int
    metrics: int
    health: int
    own_metrics: int


class Collector:
    """One collector: start, stop, kill, and what it says of itself."""

    def __init__(
        self,
        binary: pathlib.Path,
        folder: pathlib.Path,
        *,
        configs: Sequence[pathlib.Path | str] = (BASE_CONFIG,),
        env: Mapping[str, str] | None = None,
        name: str = "collector",
    ) -> None:
        self.ports = Ports(*free_ports(5))
        self.server = Server(
            name,
            [binary, *config_flags(configs)],
            health_url=f"http://127.0.0.1:{self.ports.health}/",
            folder=folder,
            env={
                "OTELCOL_GRPC_ENDPOINT": f"127.0.0.1:{self.ports.grpc}",
                "OTELCOL_HTTP_ENDPOINT": f"127.0.0.1:{self.ports.http}",
                "OTELCOL_METRICS_ENDPOINT": f"127.0.0.1:{self.ports.metrics}",
                "OTELCOL_HEALTH_ENDPOINT": f"127.0.0.1:{self.ports.health}",
                "OTELCOL_SELF_PORT": str(self.ports.own_metrics),
                "OTELCOL_STORAGE": os.fspath(folder / f"{name}-storage"),
                **(env or {}),
            },
        )

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports.grpc}"

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"

    def endpoint(self, protocol: str) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to for `grpc` or `http/protobuf`."""
        return self.grpc_endpoint if protocol == "grpc" else self.http_endpoint

    def step_metrics(self) -> str:
        """The Prometheus text that it serves about steps."""
        return _text(f"http://127.0.0.1:{self.ports.metrics}/metrics")

    def own_metric(self, name: str) -> float:
        """The sum of one of its own counters or gauges; 0 when it has not counted anything yet."""
        lines = _text(f"http://127.0.0.1:{self.ports.own_metrics}/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def wait_for_own_metric(self, name: str, at_least: float, timeout_s: float = 120.0) -> float:
        """Wait until the collector itself has counted that much."""

        def probe() -> float | None:
            value = self.own_metric(name)
            return value if value >= at_least else None

        return wait_for(f"{name} of {at_least:g}", probe, timeout_s)


def config_flags(configs: Sequence[pathlib.Path | str]) -> list[str]:
    """Command-line flags for these files, later ones over earlier ones."""
    return [part for config in configs for part in ("--config", os.fspath(config))]


def validate(
    binary: pathlib.Path, configs: Sequence[pathlib.Path | str], folder: pathlib.Path
) -> subprocess.CompletedProcess[str]:
    """What `otelcol validate` says of these files."""
    return subprocess.run(
        [binary, "validate", *config_flags(configs)],
        env={"PATH": os.environ["PATH"], "HOME": os.fspath(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()
