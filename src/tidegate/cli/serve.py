"""``tidegate serve``: a registered model behind the Open Inference Protocol."""

from __future__ import annotations

import os
import sys

import click

from tidegate.project import read_project
from tidegate.serve.load import Loaded
from tidegate.serve.server import serve


@click.command("serve")
@click.argument("model", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks a free one.")
@click.option("--store", metavar="URI", help="Where the registry lives.")
def command(model: str, host: str, port: int, store: str | None) -> None:
    """Serve a registered model (Open Inference Protocol v2) until SIGTERM or Ctrl-C.

    The default version is the alias champion. Only a version that may be served is loaded, by digest, when the
    server starts: after a promotion, start it again. GET / shows what a request looks like.
    """
    where = store or read_project().store_uri
    serve(model, host=host, port=port, store=where, on_ready=_tell)
    sys.stdout.flush()
    os._exit(0)  # granian's threads panic when they outlive the interpreter


def _tell(loaded: Loaded, url: str) -> None:
    version = loaded.version
    click.echo(f"serving {version.model} version {version.version} ({version.digest[:19]}…) at {url}")
