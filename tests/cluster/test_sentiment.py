"""The pipeline with DVC data and a transformer, here and there. Long: its image is several GB, and takes minutes to make."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.sentiment.make_data import make
from tests.cluster import setting
from tests.cluster.ground import Ground, copied
from tests.cluster.image import build_families, build_image
from tests.cluster.ran import differences
from tests.servers import web

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(3600)]
REPOSITORY = Path(__file__).parents[2]
FILE = "pipelines/sentiment/pipeline.py"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sentiment")
    with web(folder, setting.HOST) as url:
        make(folder, 640, 200, url)
        yield url


@pytest.fixture(scope="module")
def with_git(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The ground with images on a base that has git, and with the family of several GB."""
    root = tmp_path_factory.mktemp("tree")
    copied(REPOSITORY, root)
    base = build_image("git", tmp_path_factory.mktemp("images"))
    build_families(root, base, "base", "train", "transformers")
    return replace(ground, root=root)


def test_a_transformer_is_trained_on_dvc_data_and_kept_out_by_its_gate(with_git: Ground, url: str) -> None:
    words = ("-p", f"data=dvc+{url}/repo/.git@v1:reviews", "-p", "epochs=1")
    here, there = with_git.here(FILE, *words), with_git.there(FILE, *words)
    assert here.state == "SUCCEEDED", here.said
    assert there.state == "SUCCEEDED", there.said
    assert there.body["outputs"]["registered"] is False
    assert not list(differences(there.seen(), here.seen())), there.said
