"""What every test on a cluster has: made here from the repository, and removed at the end."""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import setting
from tests.cluster.ahead import begin
from tests.cluster.bucket import Bucket, new_bucket
from tests.cluster.compiled import compile_flows, objects
from tests.cluster.ground import Ground, copied
from tests.cluster.image import build_families, build_image
from tests.cluster.space import Space, new_space

REPOSITORY = Path(__file__).parents[2]
OWN = ("kfp", "static", "shell")


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    if not setting.MINIO:
        pytest.skip("needs an object store: TIDEGATE_TEST_MINIO=…")
    with new_bucket(tmp_path_factory.mktemp("mc")) as made:
        yield made


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree with the images.lock of the images that were built from it."""
    folder = tmp_path_factory.mktemp("tree")
    copied(REPOSITORY, folder)
    build_families(folder, setting.BASE, "base", "train")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: build_image(name, tmp_path_factory.mktemp("images")) for name in OWN}


@pytest.fixture(scope="session")
def space(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    with new_space(tmp_path_factory.mktemp("space")) as made:
        made.stock(bucket)
        for account in ("tidegate-submit", "tidegate-run"):
            made.kubeconfig(account)
        made.stranger("nobody")
        made.kubectl("apply", "-f", "-", stdin=objects())
        yield made


@pytest.fixture(scope="session")
def ground(
    root: Path, images: dict[str, str], space: Space, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory
) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    flows = compile_flows(folder / "flows", images)
    shutil.copy(root / "images.lock", flows)
    for key in ("one.txt", "folder/a", "folder/b"):
        bucket.give(f"given/{key}", f"what is in {key}")
    return Ground(root, flows, folder / "store", space, bucket, images)


@pytest.fixture(scope="session")
def with_git(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The ground with images on a base that has git, and with the family of several GB."""
    root = tmp_path_factory.mktemp("tree")
    copied(REPOSITORY, root)
    base = build_image("git", tmp_path_factory.mktemp("images"))
    build_families(root, base, "base", "train", "transformers")
    return replace(ground, root=root)


@pytest.fixture(scope="session")
def futures(request: pytest.FixtureRequest, ground: Ground) -> Iterator[dict[str, "Future[Any]"]]:
    yield from begin(request.session.items, ground)


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Begin the work of all tests before the first of them, whichever that is."""
    if any(i.get_closest_marker("ahead") and not i.get_closest_marker("skip") for i in request.session.items):
        request.getfixturevalue("futures")


@pytest.fixture
def result(request: pytest.FixtureRequest, futures: dict[str, "Future[Any]"]) -> Any:
    """What the work of this test came to."""
    return futures[request.node.nodeid].result()
