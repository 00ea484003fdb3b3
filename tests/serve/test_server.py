"""The server as processes: it answers, follows an alias, survives its workers' deaths, and ends without losing a request."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.made import registered, table_model, text_model
from tests.serve.test_protocol import ROW
from tests.servers import wait_until
from tidegate.errors import ModelRefused, ServerError, UsageError
from tidegate.registry.model import Registry
from tidegate.serve.server import listen, serve
from tidegate.serve.setup import Options
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.local import LocalStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server")
    registered(LocalStore(root / "s"), root)
    return root / "s"


def again(store: Path, folder: Path) -> int:
    """Register one more version of the model; return its number."""
    registered(LocalStore(store), folder, table_model(folder / "model", folder.as_posix()), alias="challenger")
    return max(Registry(LocalStore(store)).state("m").versions)


def promote(store: Path, version: int) -> None:
    Registry(LocalStore(store)).promote("m", version, "champion", actor="test")


@dataclass
class Served:
    """A server and what it said of itself."""

    process: subprocess.Popen[str]
    url: str
    admin: str
    errors: Path

    def get(self, path: str, base: str = "") -> Any:
        with urllib.request.urlopen(f"{base or self.url}{path}", timeout=20) as response:
            body = response.read()
        return json.loads(body) if body[:1] in (b"{", b"[") else body.decode()

    def predict(self, rows: Any) -> Any:
        with urllib.request.urlopen(f"{self.url}/predict", json.dumps(rows).encode(), timeout=20) as response:
            return json.load(response)

    def status(self) -> Any:
        return self.get("/v1/status", self.admin)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.errors.read_text().rpartition("\n")[0].splitlines()]

    def events(self, name: str, wait: bool = True) -> list[dict[str, Any]]:
        if wait:  # lines are written a few times a second
            wait_until(lambda: any(line["event"] == name for line in self.log()))
        return [line for line in self.log() if line["event"] == name]


def command(store: Path, *args: str, reference: str = "m@champion") -> list[str]:
    return [sys.executable, "-m", "tidegate", "serve", reference, "--store", str(store), "--port", "0", *args]


@contextmanager
def serving(store: Path, folder: Path, *args: str, reference: str = "m@champion") -> Iterator[Served]:
    errors = folder / "errors.jsonl"
    words = command(store, "--json", "--grace", "0.05", *args, reference=reference)
    with errors.open("w") as said, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, errors.read_text()
            ready = json.loads(line)
            yield Served(process, ready["url"], ready["admin"], errors)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_it_answers_over_http_and_stops_with_0_and_no_noise(made: Path, tmp_path: Path) -> None:
    with serving(made, tmp_path, "--log-sample", "0") as server:
        assert server.get("/v2/health/ready") == {"ready": True}
        assert server.get("/v1/ready", server.admin) == {"ready": True}
        assert server.predict([ROW])[0]["label"] == "yes"
    assert server.process.returncode == 0
    assert server.errors.read_text() == ""


def test_the_first_line_ends_with_the_url(made: Path) -> None:
    with subprocess.Popen(command(made), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().rpartition(" ")[2].strip()
        try:
            with urllib.request.urlopen(f"{url}/v2/health/live", timeout=20) as response:
                assert response.status == 200
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def test_a_port_in_use_is_said_with_what_to_type(made: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for workers in (1, 2):
            with pytest.raises(ServerError) as e:
                listen("127.0.0.1", port, workers)
            assert (e.value.code, e.value.exit_code) == ("port-in-use", 3)
            assert e.value.hint.startswith("--port 0")
        done = subprocess.run([*command(made), "--admin-port", str(port)], capture_output=True, text=True, check=False)
        assert (done.returncode, "→ --admin-port 0" in done.stderr) == (3, True), done.stderr
    with pytest.raises(ServerError, match="cannot listen"):
        listen("192.0.2.1", 0, 1)


def test_two_servers_of_several_workers_never_share_a_port() -> None:
    ours = listen("127.0.0.1", 0, 2)
    for sock in ours:
        sock.listen()
    with pytest.raises(ServerError):
        listen("127.0.0.1", ours[0].getsockname()[1], 2)
    for sock in ours:
        sock.close()


@dataclass
class Load:
    """A client that asks again and again over kept connections, as a proxy does, and notes what came of it."""

    url: str
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        host, path = self.url.removeprefix("http://"), "/v2/models/m/infer"
        tensors = [
            {"name": n, "shape": [1], "datatype": d, "data": [ROW[n]]}
            for n, d in (("x", "FP32"), ("n", "INT64"), ("kind", "BYTES"))
        ]
        body = json.dumps({"inputs": tensors}).encode()
        connection = http.client.HTTPConnection(host, timeout=30)
        with closing(connection):
            self._ask(connection, path, body)

    def _ask(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
        while not self._stop.is_set():
            try:
                connection.request("POST", path, body)
                response = connection.getresponse()
                said = response.read()
            except OSError as e:
                if not self._stop.is_set():
                    self.failures.append(repr(e))
                return
            except http.client.HTTPException as e:
                self.failures.append(repr(e))
                return
            if response.status != 200:
                self.failures.append(f"{response.status} {said!r}")
            else:
                self.answers.append(json.loads(said)["model_version"])


def test_an_alias_that_moves_is_followed_without_losing_a_request(made: Path, tmp_path: Path) -> None:
    version = again(made, tmp_path / "v")
    with serving(made, tmp_path, "--follow", "--poll", "0.1", "--workers", "2") as server, Load(server.url) as load:
        wait_until(lambda: len(load.answers) > 50)
        promote(made, version)
        try:
            wait_until(lambda: server.status()["version"] == version)
            mark = len(load.answers)
            wait_until(lambda: len(load.answers) > mark + 50)
            assert set(load.answers[mark + 10 :]) == {str(version)}
            assert set(load.answers) == {"1", str(version)}
            (swap,) = server.events("swapped")
            assert (swap["before"], swap["version"]) == (1, version)
            text = server.get("/metrics", server.admin)
            for served in ("1", str(version)):
                assert any(
                    f'version="{served}"' in line
                    for line in text.splitlines()
                    if line.startswith("tidegate_labels_total")
                )
        finally:
            promote(made, 1)
    assert load.failures == []


def test_a_version_that_is_refused_leaves_the_last_good_one_and_that_is_said(made: Path, tmp_path: Path) -> None:
    version = again(made, tmp_path / "v")
    blobs = Blobs(LocalStore(made))
    digest = digest_path(tmp_path / "v" / "model" / "requirements.txt").digest
    file = made / blobs.uri(digest).removeprefix(f"{made}/")
    good = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with serving(made, tmp_path, "--follow", "--poll", "0.1") as server:
        try:
            promote(made, version)
            wait_until(lambda: server.status()["refused"] is not None)
            said = server.status()
            assert (said["version"], said["ready"], said["refused"]["version"]) == (1, True, version)
            assert said["refused"]["error"]["code"] == "model-digest-mismatch"
            assert server.predict([ROW])[0]["label"] == "yes"
            assert f'tidegate_refused{{version="{version}"}} 1.0' in server.get("/metrics", server.admin)
            file.write_bytes(good)  # mended: an order to look again takes it
            urllib.request.urlopen(f"{server.admin}/v1/reload", b"", timeout=20).close()
            wait_until(lambda: server.status()["version"] == version)
            assert server.status()["refused"] is None
        finally:
            promote(made, 1)
        (refused,) = server.events("refused")
        assert (refused["version"], refused["serving"]) == (version, 1)


def test_a_worker_that_is_killed_is_started_again_and_its_counts_stay(made: Path, tmp_path: Path) -> None:
    with serving(made, tmp_path, "--workers", "2") as server:
        first = {w["pid"] for w in server.status()["workers"]}
        for _ in range(20):
            server.predict([ROW])
        wait_until(lambda: server.get("/v1/scores", server.admin)["rows"] == 20)
        before = server.get("/v1/scores", server.admin)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.status()["ready"] and not first & {w["pid"] for w in server.status()["workers"]})
        server.predict([ROW])
        wait_until(lambda: server.get("/v1/scores", server.admin)["rows"] == 21)
        assert server.get("/v1/scores", server.admin)["epoch"] == before["epoch"]
        assert server.status()["restarts"] == 2
        wait_until(lambda: len(server.events("worker-died")) == 2)
        assert {e["code"] for e in server.events("worker-died")} == {-9}


def test_when_the_leading_process_is_killed_its_workers_end(made: Path, tmp_path: Path) -> None:
    with serving(made, tmp_path, "--workers", "2") as server:
        pids = [w["pid"] for w in server.status()["workers"]]
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids))


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_drain_under_load_loses_no_request(made: Path, tmp_path: Path) -> None:
    words = ("--workers", "2", "--grace", "5")
    for part in ("signal", "admin"):
        (tmp_path / part).mkdir()
    with serving(made, tmp_path / "signal", *words) as told, serving(made, tmp_path / "admin", *words) as asked:
        loads = [drained(told, lambda: told.process.send_signal(signal.SIGTERM))]
        ask = partial(urllib.request.urlopen, f"{asked.admin}/v1/drain", b"", timeout=20)
        loads.append(drained(asked, lambda: ask().close()))
        assert [s.process.wait(60) for s in (told, asked)] == [0, 0], "after their grace"
    assert [load.failures for load in loads] == [[], []]
    assert [s.events("drain-cut", wait=False) for s in (told, asked)] == [[], []]


def drained(server: Served, tell: Callable[[], None]) -> Load:
    """Tell a server to drain while it is asked, and go on asking for a while."""
    with Load(server.url) as load:
        wait_until(lambda: len(load.answers) > 100)
        tell()
        wait_until(lambda: status_of(f"{server.url}/v2/health/ready") == 400)
        mark = len(load.answers)
        wait_until(lambda: len(load.answers) > mark + 100)
    return load  # as a balancer that has seen it


def test_during_the_grace_it_is_not_ready_and_still_answers(made: Path, tmp_path: Path) -> None:
    with serving(made, tmp_path, "--grace", "600", "--drain", "0") as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status_of(f"{server.url}/v2/health/ready") == 400)
        assert status_of(f"{server.admin}/v1/ready") == 503
        assert server.predict([ROW])[0]["label"] == "yes"
        server.process.send_signal(signal.SIGTERM)  # the second one does not wait
        assert server.process.wait(60) == 0


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as e:
        e.close()
        return e.code


def test_a_server_with_a_token_answers_only_to_it_and_keeps_it_out_of_its_log(made: Path, tmp_path: Path) -> None:
    token = "a-token-of-this-test"
    (tmp_path / "token").write_text(token + "\n")
    with serving(made, tmp_path, "--token-file", str(tmp_path / "token"), "--log-sample", "1") as server:
        for url in (f"{server.url}/v2", f"{server.admin}/metrics"):
            assert status_of(url) == 401
            assert status_of(url, authorization=f"Bearer {token}x") == 401
            assert status_of(url, authorization=f"Bearer {token}") == 200
            assert status_of(url, authorization=f"Bearer {token}", host="evil.example") == 421
        assert status_of(f"{server.url}/v2/health/ready") == 200
    assert token not in server.errors.read_text()


def test_what_would_be_open_to_strangers_is_refused_before_it_listens(made: Path) -> None:
    for args in (["--host", "0.0.0.0"], ["--admin-host", "0.0.0.0"], ["--admin-host", "0.0.0.0", "--open"]):
        done = subprocess.run(command(made, *args), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "error[serve-exposed]" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_name_that_the_data_port_is_given_reaches_no_admin_port(made: Path, tmp_path: Path) -> None:
    with serving(made, tmp_path, "--allow-host", "*", "--allow-host", "a.test") as server:
        for host in ("evil.example", "a.test"):
            assert status_of(f"{server.url}/v2", host=host) == 200
            assert status_of(f"{server.admin}/v1/status", host=host) == 421


def certificates(folder: Path) -> None:
    """A CA, a server's certificate and a client's, each with its key."""

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            f"{name}.pem",
            "-extfile",
            "names",
        )


def test_with_mtls_only_a_client_with_a_certificate_is_answered(made: Path, tmp_path: Path) -> None:
    certificates(tmp_path)
    files = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", "ca.pem"]
    with serving(
        made, tmp_path, *(str(tmp_path / f) if f.endswith(("pem", "key")) and f[0] != "-" else f for f in files)
    ) as server:
        assert server.url.startswith("https://")
        ours = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        for url in (f"{server.url}/v2/health/live", f"{server.admin}/v1/status"):
            with pytest.raises(OSError):
                urllib.request.urlopen(url, timeout=20, context=ours)
        ours.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        for url in (f"{server.url}/v2/health/live", f"{server.admin}/v1/status"):
            with urllib.request.urlopen(url, timeout=20, context=ours) as response:
                assert response.status == 200


def test_tls_files_that_are_replaced_badly_are_said_and_waited_for(made: Path, tmp_path: Path) -> None:
    certificates(tmp_path)
    cert, good = tmp_path / "server.pem", (tmp_path / "server.pem").read_bytes()
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with serving(made, tmp_path, "--tls-cert", str(cert), "--tls-key", str(tmp_path / "server.key")) as server:
        with urllib.request.urlopen(f"{server.admin}/v1/status", timeout=20, context=context) as response:
            (worker,) = json.load(response)["workers"]
        cert.write_bytes(b"no certificate")
        os.kill(worker["pid"], signal.SIGKILL)
        assert {e["error"]["code"] for e in server.events("worker-refused")} == {"tls-invalid"}
        cert.write_bytes(good)

        def ready() -> bool:
            with (
                suppress(urllib.error.HTTPError),
                urllib.request.urlopen(f"{server.admin}/v1/ready", timeout=20, context=context),
            ):
                return True
            return False

        wait_until(ready)
    assert "Traceback" not in server.errors.read_text()


def test_a_public_client_of_the_protocol_works_unchanged(made: Path, tmp_path: Path) -> None:
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

    with serving(made, tmp_path) as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        try:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("m")
            assert client.is_model_ready("m", "1")
            assert not client.is_model_ready("other")
            assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
            said = client.get_model_metadata("m", "1")
            assert [t["name"] for t in said["inputs"]] == ["x", "n", "kind"]
            columns = {
                "x": np.array([19.0, 1.0], np.float32),
                "n": np.array([1, 2]),
                "kind": np.array(["a", "é"], object),
            }
            answers = []
            for binary in (True, False):
                inputs = []
                for tensor in said["inputs"]:
                    made_ = triton.InferInput(tensor["name"], [2], tensor["datatype"])
                    made_.set_data_from_numpy(columns[tensor["name"]], binary_data=binary)
                    inputs.append(made_)
                wanted = [triton.InferRequestedOutput(n, binary_data=binary) for n in ("label", "probabilities")]
                for outputs in (None, wanted):
                    found = client.infer("m", inputs, outputs=outputs, request_id="r")
                    assert found.get_response()["id"] == "r"
                    label = found.as_numpy("label")
                    answers.append(
                        (
                            [v.decode() if isinstance(v, bytes) else v for v in label.tolist()],
                            found.as_numpy("probabilities").tolist(),
                        )
                    )
            assert answers[0][0] == ["yes", "no"]
            assert all(a == answers[0] for a in answers[1:])
            with pytest.raises(InferenceServerException, match="there is no model"):
                client.infer("other", inputs)
        finally:
            client.close()


def test_the_document_is_openapi_and_the_page_loads_nothing_from_elsewhere(made: Path, tmp_path: Path) -> None:
    from openapi_spec_validator import validate

    with serving(made, tmp_path) as server:
        document = server.get("/openapi.json")
        validate(document)
        assert set(document["paths"]) >= {"/predict", "/v2/models/m/infer"}
        with urllib.request.urlopen(f"{server.url}/docs", timeout=20) as response:
            page = response.read().decode()
            assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "http://" not in page
        assert "https://" not in page
        assert "src=" not in page


def test_neither_process_imports_what_it_does_not_need(made: Path) -> None:
    heavy = ["kfp", "mlflow", "pandas", "torch", "sklearn", "pyarrow", "polars", "transformers"]
    leading = [*heavy, "numpy", "onnxruntime", "msgspec", "prometheus_client"]
    for module, refused in (("tidegate.cli.serve", leading), ("tidegate.serve.worker", heavy)):
        code = f"import sys, {module}; print([m for m in {refused} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "[]", module


def test_text_is_tokenised_in_the_server_and_scored_beside_the_loop(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "s")
    registered(store, tmp_path, text_model(tmp_path / "text"))
    with serving(tmp_path / "s", tmp_path) as server:
        rows = [{"text": t} for t in ("good fine good", "bad", "good " * 20 + "bad " * 30, "")]
        assert [a["label"] for a in server.predict(rows)] == ["yes", "no", "yes", "no"]  # cut at 8 tokens
        maps = Path(f"/proc/{server.status()['workers'][0]['pid']}/maps").read_text()
        assert "onnxruntime" in maps
        assert "torch" not in maps


def test_other_bytes_than_were_asked_for_are_refused_before_anything_is_loaded(made: Path) -> None:
    def never(_: object) -> None:
        pytest.fail("it was served")

    digest = "sha256:" + "0" * 64
    with pytest.raises(ModelRefused, match=f"version 1 of m in {made} is sha256:.*, not {digest}") as e:
        serve("m:1", Options(port=0), store=str(made), digest=digest, on_ready=never)
    assert e.value.code == "digest-other"
    with pytest.raises(UsageError, match="--digest names bytes"):
        serve("m", Options(port=0, follow=True), store=str(made), digest=digest, on_ready=never)
