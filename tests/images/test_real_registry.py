import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from tests.images.conftest import Cli
from tests.images.project import base_image
from tests.images.server import FakeRegistry
from tests.servers import free_port, process
from tidegate.images.registry import OCI_INDEX, OCI_MANIFEST
from tidegate.images.sbom import MEDIA_TYPE

SERVER = shutil.which("docker-registry")


@pytest.mark.skipif(not SERVER, reason="needs docker-registry, of the Debian package of that name")
def test_a_real_registry_takes_the_image_and_its_bill_of_materials(
    cli: Cli, registry: FakeRegistry, tmp_path: Path
) -> None:
    port = free_port()
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    assert SERVER
    with process(SERVER, "serve", str(config), port=port):
        done = [
            cli("build", "--base", base_image(registry), "--push", f"127.0.0.1:{port}/team", "--json") for _ in range(2)
        ]
        built, again = (json.loads(d.stdout)["images"][0] for d in done)
        assert built == again

        def ask(name: str, media_type: str) -> urllib.request.Request:
            address = f"http://127.0.0.1:{port}/v2/team/base/manifests/{name}"
            return urllib.request.Request(address, headers={"Accept": media_type})

        with urllib.request.urlopen(ask(built["digest"], OCI_MANIFEST)) as answer:
            assert answer.headers["Docker-Content-Digest"] == built["digest"]
        tag = built["digest"].replace(":", "-")
        with urllib.request.urlopen(ask(tag, OCI_INDEX)) as answer:
            assert [m["artifactType"] for m in json.loads(answer.read())["manifests"]] == [MEDIA_TYPE]
