"""``tidegate serve``: a registered model behind the Open Inference Protocol."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate.errors import ConfigError, UsageError
from tidegate.project import read_project, serve_token
from tidegate.serve.connection import Limits
from tidegate.serve.leader import Ready
from tidegate.serve.server import serve
from tidegate.serve.setup import Logging, Options
from tidegate.serve.tls import Tls

_SHARE = click.FloatRange(0, 1)
_SECONDS = click.FloatRange(0, 86_400)
_PORT = click.IntRange(0, 65535)


@click.command("serve")
@click.argument("model", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address of the data port.")
@click.option("--port", type=_PORT, default=8080, show_default=True, help="0 picks a free one.")
@click.option("--admin-host", default="127.0.0.1", show_default=True, help="The address of the admin port.")
@click.option("--admin-port", type=_PORT, default=0, show_default=True, help="0 picks a free one.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that score.")
@click.option("--follow", is_flag=True, help="Serve what the alias names, whenever it moves.")
@click.option("--poll", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between looks.")
@click.option("--digest", default="", metavar="sha256:…", help="Refuse the version if these are not its bytes.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A bearer token, else TIDEGATE_SERVE_TOKEN.")
@click.option("--tls-cert", type=click.Path(), help="Our certificate with its chain (PEM).")
@click.option("--tls-key", type=click.Path(), help="Its key (PEM).")
@click.option("--tls-client-ca", type=click.Path(), help="The CA of clients' certificates (PEM): mTLS.")
@click.option("--open", "open_", is_flag=True, help="Let everybody who reaches the data port ask it.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="The data port's name on loopback; * for any.")
@click.option("--max-body", type=click.IntRange(1), default=8 << 20, show_default=True, help="Bytes of a request.")
@click.option("--max-connections", type=click.IntRange(1), default=1024, show_default=True, help="Of one worker.")
@click.option("--max-wait", type=_SECONDS, default=1.0, show_default=True, help="Seconds in the queue, else 503.")
@click.option("--log-sample", type=_SHARE, default=0.01, show_default=True, help="Of requests without trouble.")
@click.option("--slow", type=_SECONDS, default=0.5, show_default=True, help="Seconds from which all are logged.")
@click.option("--prediction-log", type=click.Path(path_type=Path), metavar="DIR", help="Keep scored rows as Parquet.")
@click.option("--prediction-sample", type=_SHARE, default=0.01, show_default=True, help="The share of requests kept.")
@click.option("--grace", type=_SECONDS, default=0.5, show_default=True, help="Seconds not ready but answering.")
@click.option("--drain", type=_SECONDS, default=30.0, show_default=True, help="The most seconds for the rest.")
@click.option("--store", metavar="URI", help="Where the registry lives.")
@click.option("--json", "as_json", is_flag=True, help="Say where it is as one line of JSON.")
def command(
    model: str, host: str, port: int, admin_host: str, admin_port: int, workers: int, follow: bool, poll: float,
    digest: str, token_file: Path | None, tls_cert: str | None, tls_key: str | None, tls_client_ca: str | None, open_: bool,
    allow_host: tuple[str, ...], max_body: int, max_connections: int, max_wait: float, log_sample: float, slow: float,
    prediction_log: Path | None, prediction_sample: float, grace: float, drain: float, store: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Serve a registered model (Open Inference Protocol v2) until SIGTERM or Ctrl-C.

    The default version is the alias champion. Only a version that may be served is loaded, by digest. GET / shows what a
    request looks like, /docs is a page. The log, JSON lines on stderr, has errors, each slow request and a sample of
    the rest. SIGHUP looks at the alias now.
    """
    options = Options(
        host=host, port=port, admin_host=admin_host, admin_port=admin_port, workers=workers, token=_token(token_file),
        tls=_tls(tls_cert, tls_key, tls_client_ca), open=open_, names=allow_host, follow=follow, poll=poll,
        limits=Limits(body=max_body, connections=max_connections),
        logging=Logging(log_sample, slow, prediction_sample), keep=prediction_log, most_seconds=max_wait, grace=grace,
        drain=drain,
    )  # fmt: skip
    where = store or read_project().store_uri
    serve(model, options, store=where, digest=digest, on_ready=_tell_json if as_json else _tell)


def _tell(ready: Ready) -> None:
    version = ready.version
    click.echo(f"serving {version.model} version {version.version} ({version.digest[:19]}…) at {ready.url}")
    click.echo(f"admin port: {ready.admin}")


def _tell_json(ready: Ready) -> None:
    version = ready.version
    said = {"model": version.model, "version": version.version, "digest": version.digest, "url": ready.url}
    click.echo(json.dumps({**said, "admin": ready.admin, "pid": ready.pid}))


def _token(file: Path | None) -> str | None:
    if file is None:
        return serve_token() or None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"the token file {file} cannot be read: {e}", code="token-invalid") from e


def _tls(cert: str | None, key: str | None, client_ca: str | None) -> Tls | None:
    if cert and key:
        return Tls(cert, key, client_ca)
    if cert or key or client_ca:
        allowed = "--tls-cert and --tls-key together, and --tls-client-ca with them."
        raise UsageError("TLS needs a certificate and its key", allowed=allowed, code="tls-invalid")
    return None
