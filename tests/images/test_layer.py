import os
import random
import tarfile
from pathlib import Path

from tidegate.images.layer import Entry, entries, write


def test_a_layer_is_the_same_bytes_whatever_the_order_the_times_and_the_modes(tmp_path: Path) -> None:
    made = []
    for turn in (1, 2):
        tree = tmp_path / str(turn) / "tree"
        names = ["b/x", "a", "b/y/z", "b.c", "ü", "b/\n"]
        random.Random(turn).shuffle(names)
        for name in names:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
            (tree / name).chmod(0o600 if turn == 1 else 0o664)
            os.utime(tree / name, (turn, turn))
        (tree / "program").touch(0o700 if turn == 1 else 0o755)
        (tree / "link").symlink_to("a")
        found = list(entries(tree, "app"))
        random.Random(turn).shuffle(found)
        made.append(write(found, tmp_path / str(turn) / "blobs", "it"))
    assert made[0].descriptor == made[1].descriptor
    assert made[0].diff_id == made[1].diff_id
    assert made[0].file.read_bytes() == made[1].file.read_bytes()


def test_what_is_in_a_layer_belongs_to_root_and_has_no_time(tmp_path: Path) -> None:
    long = "x" * 120
    made = write([Entry("app/" + long, b"1", executable=True), Entry("app/l", link=long)], tmp_path, "it")
    with tarfile.open(made.file) as tar:
        found = {m.name: m for m in tar}
    assert list(found) == ["app", "app/l", "app/" + long]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in found.values()} == {(0, 0, "", "", 0)}
    assert [oct(m.mode) for m in found.values()] == ["0o755", "0o777", "0o755"]
    assert made.file.name == made.descriptor.digest.removeprefix("sha256:")
    assert made.file.stat().st_size == made.descriptor.size
