"""kfp's own client against a server that answers as KFP's API does when something is wrong: our words, no tracebacks."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.servers import answering
from tidegate.engines.kfp.client import open_backend
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.errors import ClusterError, ConfigError, Conflict, NotFound, TidegateError

HEALTH = {"multi_user": False, "tag_name": "2.14.3"}


class Api(BaseHTTPRequestHandler):
    """Healthy, and otherwise whatever ``answer`` says."""

    answer = (200, "{}")
    asked: list[str] = []  # noqa: RUF012 - one server at a time

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        status, body = (200, json.dumps(HEALTH)) if self.path.endswith("/healthz") else Api.answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpSettings]:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    Api.answer, Api.asked = (200, "{}"), []
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server, answering(server):
        yield KfpSettings(host=f"http://127.0.0.1:{server.server_port}")


def test_the_version_of_the_server_is_read(settings: KfpSettings) -> None:
    assert open_backend(settings).version() == "2.14.3"


@pytest.mark.parametrize(
    ("answer", "kind", "code", "said"),
    [
        ((401, "token expired"), ClusterError, "cluster-denied", "does not know us"),
        ((403, '{"error_message": "no"}'), ClusterError, "cluster-denied", "does not let us: no"),
        ((302, "login"), ClusterError, "cluster-denied", "login page"),
        ((404, '{"error_message": "Run x not found"}'), NotFound, "kfp-not-found", "Run x not found"),
        ((409, '{"error_message": "exists"}'), Conflict, "conflict", "exists"),
        ((500, '{"error_message": "Quota exceeded"}'), ClusterError, "kfp-refused", "answered 500: Quota exceeded"),
    ],
)
def test_what_the_api_refuses_is_said_in_three_parts(
    settings: KfpSettings, answer: tuple[int, str], kind: type[TidegateError], code: str, said: str
) -> None:
    backend = open_backend(settings)
    Api.answer = answer
    with pytest.raises(kind) as refused:
        backend.run("x")
    assert (refused.value.code, said in refused.value.found) == (code, True)


def test_nothing_is_asked_for_twice_by_itself(settings: KfpSettings) -> None:
    backend = open_backend(settings)
    Api.answer, Api.asked[:] = (503, "busy"), []
    with pytest.raises(ClusterError):
        backend.enable("x", True)
    assert len(Api.asked) == 1


def test_a_backend_that_is_not_there_is_said_without_layers_of_urllib(settings: KfpSettings) -> None:
    with pytest.raises(ClusterError) as refused:
        open_backend(KfpSettings(host="http://127.0.0.1:1")).find_version("p", "v")
    assert refused.value.code == "kfp-unreachable"
    assert "Connection refused" in refused.value.found
    assert "Max retries" not in refused.value.found
    assert settings


def test_without_a_host_a_setting_is_asked_for(settings: KfpSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(ConfigError, match="nothing says where"):
        open_backend(KfpSettings())
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", settings.host)
    assert open_backend(KfpSettings()).version() == "2.14.3"


def test_an_absent_recurring_run_is_removed_already(settings: KfpSettings) -> None:
    backend = open_backend(settings)
    Api.answer = (404, '{"error_message": "gone"}')
    backend.remove("x")
    assert any(a.startswith("DELETE ") for a in Api.asked)


def test_an_experiment_is_looked_for_and_not_made(settings: KfpSettings) -> None:
    backend = open_backend(settings)
    assert backend.find_experiment("sea") is None
    Api.answer = (200, json.dumps({"experiments": [{"experiment_id": "e1", "display_name": "sea"}]}))
    assert backend.find_experiment("sea") == "e1"
    assert all(asked.startswith("GET ") for asked in Api.asked)
    assert "sea" in Api.asked[-1]
