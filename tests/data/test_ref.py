"""Dataset references of every kind: a moving name is resolved once, a pin stays what it is, what is fetched is checked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import DataBucket, answering, data_bucket, free_port, moto
from tidegate.data import ref
from tidegate.data.digests import Digests
from tidegate.errors import Damaged, NotFound, Trouble, UsageError
from tidegate.store.blobs import digest_path
from tidegate.store.memory import MemoryStore


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto(free_port()) as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> DataBucket:
    return data_bucket(s3, monkeypatch.setenv)


class Page:
    """What a web server of one page says."""

    def __init__(self) -> None:
        self.body, self.headers, self.head, self.cut = b"one", {"ETag": '"1"'}, 200, 0


@contextmanager
def site(page: Page) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(page.head, b"")

        def do_GET(self) -> None:
            self.answer(200 if self.path == "/x.csv" else 404, page.body)

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - page.cut])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, answering(server):
        yield f"http://127.0.0.1:{server.server_port}/x.csv"


def test_a_folder_is_pinned_by_the_digest_of_all_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a b#c").mkdir()
    (tmp_path / "a b#c" / "rows").write_text("1")
    pin = ref.resolve(f"file:{tmp_path}/a b%23c")
    assert pin.identity == digest_path(tmp_path / "a b#c").digest
    assert ref.parse_pin(str(pin)) == pin == ref.resolve(str(pin))
    assert ref.fetch(str(pin), tmp_path / "out").digest == pin.identity
    (tmp_path / "a b#c" / "rows").write_text("2")
    with pytest.raises(NotFound) as e:
        ref.fetch(str(pin), tmp_path / "late")
    assert e.value.code == "data-moved"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a b#c", "out"], "half of it is never left behind"


def test_a_relative_file_stands_at_the_projects_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data.csv").write_text("1")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert str(ref.resolve("file:data.csv")).startswith(f"file:{tmp_path}/data.csv#digest=")


def test_a_marker_counts_only_while_nothing_is_younger(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("1")
    reference = f"file:{tmp_path}"
    assert not ref.resolve(reference).complete
    (tmp_path / "_SUCCESS").touch()
    os.utime(tmp_path / "rows", ns=(1, 1))
    assert ref.resolve(reference).complete
    os.utime(tmp_path / "rows", ns=(2**61, 2**61))
    assert not ref.resolve(reference).complete, "it grows again"


def test_objects_are_pinned_by_what_is_listed_and_come_checked(bucket: DataBucket, tmp_path: Path) -> None:
    bucket.put("data/a.csv", "1")
    bucket.put("data/deep/b.csv", "2")
    pin = ref.resolve(bucket.uri())
    assert ref.parse_pin(str(pin)) == pin
    content = ref.fetch(str(pin), tmp_path / "out")
    assert content == digest_path(tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "b.csv").read_text() == "2"
    bucket.put("data/a.csv", "1")
    assert ref.resolve(bucket.uri()) == pin, "the same bytes again are the same data"
    bucket.put("data/a.csv", "3")
    assert ref.resolve(bucket.uri()).identity != pin.identity
    with pytest.raises(NotFound) as e:
        ref.fetch(str(pin), tmp_path / "late")
    assert (e.value.code, (tmp_path / "late").exists()) == ("data-moved", False)


def test_a_version_that_the_bucket_keeps_is_found_behind_later_ones(bucket: DataBucket, tmp_path: Path) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    bucket.put("data.csv", "one")
    pin = ref.resolve(bucket.uri("data.csv"))
    bucket.put("data.csv", "two")
    assert "&version=" in str(pin)
    ref.fetch(str(pin), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "one"
    assert ref.resolve(bucket.uri("data.csv")).identity != pin.identity


def test_a_prefix_with_a_marker_is_complete_until_something_follows(bucket: DataBucket) -> None:
    from tidegate.data.objects import Found, _is_complete

    bucket.put("data/a", "1")
    assert not ref.resolve(bucket.uri()).complete
    bucket.put("data/_SUCCESS", "")
    assert ref.resolve(bucket.uri()).complete
    written = [Found("data/_SUCCESS", 0, "", modified=5.0), Found("data/a", 1, "", modified=4.0)]
    assert _is_complete(written)
    assert not _is_complete([*written, Found("data/b", 1, "", modified=6.0)])


def test_a_bucket_that_is_not_there_or_not_reachable_is_said(
    bucket: DataBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound):
        ref.resolve(bucket.uri("nothing"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Trouble):
        ref.resolve(bucket.uri())


@pytest.mark.parametrize(
    ("headers", "head", "start"),
    [
        ({"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"}, 200, "etag=%221%22"),
        ({"ETag": 'W/"1"'}, 405, "etag=W%2F%221%22"),
        ({"Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"}, 200, "modified=Tue%2C%2024"),
        ({}, 200, "sha256="),
    ],
)
def test_a_page_is_pinned_by_what_its_server_says_else_by_its_bytes(
    headers: dict[str, str], head: int, start: str, tmp_path: Path
) -> None:
    page = Page()
    page.headers, page.head = headers, head
    with site(page) as url:
        pin = ref.resolve(url)
        assert str(pin).startswith(f"{url}#{start}")
        assert ref.parse_pin(str(pin)) == pin
        assert ref.fetch(str(pin), tmp_path / "out") == digest_path(tmp_path / "out")
        page.body, page.headers = b"other", {n: v.replace("1", "2") for n, v in headers.items()}
        assert ref.resolve(url).identity != pin.identity
        with pytest.raises(NotFound) as e:
            ref.fetch(str(pin), tmp_path / "late")
    assert e.value.code == "data-moved"


def test_a_server_whose_word_is_false_is_found_out_the_second_time(tmp_path: Path) -> None:
    page, store = Page(), MemoryStore()
    with site(page) as url:
        pin = str(ref.resolve(url))
        content = ref.fetch(pin, tmp_path / "a", store)
        assert Digests(store).find(pin) == content
        page.body = b"two"
        with pytest.raises(Damaged):
            ref.fetch(pin, tmp_path / "b", store)
    assert not (tmp_path / "b").exists()


def test_a_transfer_that_breaks_off_and_a_page_that_is_gone_are_said(tmp_path: Path) -> None:
    page = Page()
    with site(page) as url:
        pin = str(ref.resolve(url))
        page.cut = 1
        with pytest.raises(Trouble) as e:
            ref.fetch(pin, tmp_path / "out")
        assert (e.value.code, (tmp_path / "out").exists()) == ("data-unreachable", False)
        page.head = 404
        with pytest.raises(NotFound):
            ref.resolve(url)
    with pytest.raises(Trouble):
        ref.resolve(url)


def test_what_was_kept_comes_when_its_source_moved_on(tmp_path: Path) -> None:
    store = MemoryStore()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("1")
    pin = str(ref.resolve(f"file:{tmp_path}/data"))
    content = ref.keep(pin, store)
    (tmp_path / "data" / "a").write_text("2")
    assert ref.fetch(pin, tmp_path / "out", store) == content
    assert (tmp_path / "out" / "a").read_text() == "1"


def test_a_digest_is_learned_once_and_is_the_same_wherever_the_bytes_are(bucket: DataBucket, tmp_path: Path) -> None:
    store = MemoryStore()
    bucket.put("data/a", "1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("1")
    pins = [str(ref.resolve(r)) for r in (bucket.uri(), f"file:{tmp_path}/data")]
    assert len({ref.learn(p, store).digest for p in pins}) == 1
    bucket.put("data/a", "2")
    assert ref.learn(pins[0], store), "nothing is read again"


def test_a_whole_bucket_is_a_dataset(bucket: DataBucket, tmp_path: Path) -> None:
    bucket.put("a", "1")
    bucket.put("deep/", "")  # as consoles of object stores make folders
    bucket.put("deep/b", "2")
    ref.fetch(str(ref.resolve(f"s3://{bucket.name}")), tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "b").read_text() == "2"


def test_the_mark_of_a_folder_is_no_object_of_it(bucket: DataBucket, tmp_path: Path) -> None:
    bucket.put("data/", "")
    with pytest.raises(NotFound):
        ref.resolve(bucket.uri())
    bucket.put("data/a", "1")
    ref.fetch(str(ref.resolve(bucket.uri())), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1")
    with pytest.raises(UsageError) as e:
        ref.fetch(str(ref.resolve(f"file:{tmp_path}/data")), tmp_path / "data")
    assert e.value.code == "target-exists"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("data/x", "reference-invalid"),
        ("s3:/b/x", "reference-invalid"),
        ("s3://", "reference-invalid"),
        ("s3://b/x y", "reference-invalid"),
        ("https://", "reference-invalid"),
        ("dvc+repo:path", "reference-invalid"),
        ("dvc+repo@v1:../../etc", "pin-invalid"),
        ("file:", "reference-invalid"),
        ("https://me:secret@host/x", "reference-secret"),
        ("dvc+https://me:secret@host/r@v1:x", "reference-secret"),
    ],
)
def test_what_is_no_reference_is_refused_before_anything_is_looked_at(text: str, code: str) -> None:
    with pytest.raises(UsageError) as e:
        ref.parse(text)
    assert e.value.code == code
    assert "secret@" not in str(e.value)


@pytest.mark.parametrize("text", ["file:x", "s3://b/x", "https://h/x", "dvc+r@main:x", "s3://b/x#inventory=1"])
def test_a_moving_reference_is_no_pin(text: str) -> None:
    with pytest.raises(UsageError) as e:
        ref.parse_pin(text)
    assert e.value.code == "pin-invalid"


@given(st.sampled_from(["", "model:", "model:m:1#digest=sha256:", *ref.ADAPTERS]), st.text(max_size=40))
def test_any_text_is_a_pin_that_reads_back_or_is_refused_with_a_code(start: str, rest: str) -> None:
    code = ""
    try:
        pin = ref.parse_pin(start + rest)
        assert ref.parse_pin(str(pin)) == pin
    except UsageError as e:
        code = e.code
    assert code in ("", "reference-invalid", "reference-secret", "pin-invalid")
