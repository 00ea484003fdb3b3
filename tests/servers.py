"""Real servers on loopback for the tests that need one, each stopped by its pid."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import pytest

from tidegate.store.object import ObjectStore

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "aws_region": "us-east-1"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end, tick = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        tick.wait(0.05)


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(*command: str, port: int, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until it listens, then the block, then stop it."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, start_new_session=True, env=env, **quiet)
    try:
        wait_until(lambda: listening(port) or server.poll() is not None, 200)
        assert server.poll() is None, f"{command} ended with {server.returncode}"
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # nobody needs it any more; some wait long for idle workers
        server.wait()


class Quiet(SimpleHTTPRequestHandler):
    """A web server that keeps what it answers to itself."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(server: BaseServer) -> Iterator[None]:
    """Let a server answer until the block ends; by itself it would look for its end twice a second."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def web(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The files of a folder over HTTP."""
    with ThreadingHTTPServer((host, 0), partial(Quiet, directory=str(folder))) as server, answering(server):
        yield f"http://{host}:{server.server_port}"


@contextmanager
def moto(port: int) -> Iterator[str]:
    with process(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), port=port):
        yield f"http://127.0.0.1:{port}"


def create_bucket(endpoint: str, name: str) -> None:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket=name)


@dataclass(frozen=True)
class DataBucket:
    """A bucket with somebody's data, which tidegate only reads."""

    client: Any
    name: str

    def put(self, key: str, text: str) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=text.encode())

    def uri(self, key: str = "data") -> str:
        return f"s3://{self.name}/{key}"


def data_bucket(endpoint: str, setenv: Callable[[str, str], None], key: str = "k", secret: str = "s") -> DataBucket:
    """A new bucket, with its address and credentials in the environment."""
    import boto3

    for name, value in {
        "ENDPOINT_URL": endpoint,
        "ACCESS_KEY_ID": key,
        "SECRET_ACCESS_KEY": secret,
        "REGION": "us-east-1",
    }.items():
        setenv(f"AWS_{name}", value)
    client = boto3.Session(key, secret, region_name="us-east-1").client("s3", endpoint_url=endpoint)
    bucket = DataBucket(client, f"data-{secrets.token_hex(4)}")
    client.create_bucket(Bucket=bucket.name)
    return bucket


@contextmanager
def moto_bucket() -> Iterator[Callable[[], ObjectStore]]:
    """A bucket of a real S3 server (moto); each call gives a store at a prefix of its own."""
    with moto(free_port()) as endpoint:
        create_bucket(endpoint, "tidegate")
        number = itertools.count()
        yield lambda: ObjectStore(f"s3://tidegate/{next(number)}", aws_endpoint=endpoint, **KEYS)


CLUSTER = Path(os.environ.get("CLUSTER_HOME") or Path.home() / ".cache/tidegate-cluster")
MINIO = os.environ.get("TIDEGATE_TEST_MINIO_BINARY") or shutil.which("minio") or str(CLUSTER / "bin/minio")
ROOT = {"MINIO_ROOT_USER": "k" * 8, "MINIO_ROOT_PASSWORD": "s" * 8}


@contextmanager
def minio(folder: Path, setenv: Callable[[str, str], None], port: int = 0, **settings: str) -> Iterator[DataBucket]:
    """A bucket of a real MinIO server with its data in a folder; skipped where there is no server's program."""
    if not Path(MINIO).is_file():
        pytest.skip(f"needs MinIO's server: a minio on PATH, in TIDEGATE_TEST_MINIO_BINARY or at {MINIO}")
    port = port or free_port()
    env = {**os.environ, **ROOT, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", **settings}
    with process(MINIO, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder), port=port, env=env):
        endpoint = f"http://127.0.0.1:{port}"
        wait_until(lambda: ready(f"{endpoint}/minio/health/ready"))
        yield data_bucket(endpoint, setenv, *ROOT.values())


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
