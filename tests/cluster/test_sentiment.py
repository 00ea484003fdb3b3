"""The pipeline with DVC data and a transformer, here and there. Long: its image is several GB, and takes minutes to make."""

from collections.abc import Iterator

import pytest

from pipelines.sentiment.make_data import make
from tests.cluster import setting
from tests.cluster.ground import Ground
from tests.cluster.ran import differences
from tests.servers import web

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(3600)]
FILE = "pipelines/sentiment/pipeline.py"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sentiment")
    with web(folder, setting.HOST) as url:
        make(folder, 640, 200, url)
        yield url


def test_a_transformer_is_trained_on_dvc_data_and_kept_out_by_its_gate(with_git: Ground, url: str) -> None:
    words = ("-p", f"data=dvc+{url}/repo/.git@v1:reviews", "-p", "epochs=1")
    here, there = with_git.here(FILE, *words), with_git.there(FILE, *words)
    assert here.state == "SUCCEEDED", here.said
    assert there.state == "SUCCEEDED", there.said
    assert there.body["outputs"]["registered"] is False
    assert not list(differences(there.seen(), here.seen())), there.said
