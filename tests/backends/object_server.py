"""An S3 server of our own: the Versity gateway, which keeps objects in a folder."""

from __future__ import annotations

import pathlib
import uuid
from collections.abc import Iterator

import pytest
from installed import installed
from processes import Server, free_ports, running

ACCESS_KEY = "AKIATESTKEY"
SECRET_KEY = "s3cret/that+nobody=sees"


class Gateway:
    """An S3 server on a free port of the loopback, with one bucket."""

    bucket = "burr"

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path) -> None:
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.objects = folder / "objects"
        (self.objects / self.bucket).mkdir(parents=True)
        (folder / "metadata").mkdir()  # beside the objects: not every file system has attributes
        self.server = Server(
            "versitygw",
            [binary, "--port", f"127.0.0.1:{port}", "--health", "/health", "--quiet",
             "posix", "--sidecar", folder / "metadata", self.objects],
            health_url=f"{self.endpoint}/health",
            folder=folder,
            env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        )  # fmt: skip

    @property
    def settings(self) -> dict[str, str]:
        """What a client has in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }

    def url(self) -> str:
        """A place with nothing in it."""
        return f"s3://{self.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One S3 server for the whole session."""
    made = Gateway(installed("versitygw", "bin/versitygw"), tmp_path_factory.mktemp("versitygw"))
    with running(made.server):
        yield made


@pytest.fixture
def bucket_url(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place with nothing in it, and the environment of a client."""
    for name, value in gateway.settings.items():
        monkeypatch.setenv(name, value)
    return gateway.url()
