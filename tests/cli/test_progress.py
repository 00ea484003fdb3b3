"""The end of a failed run, as it is read on a terminal."""

from pathlib import Path
from typing import Any

import pytest

from tidegate.cli.progress import failure


def frame(file: str, function: str) -> dict[str, Any]:
    return {"file": file, "line": 1, "function": function, "code": ""}


def shown(*frames: dict[str, Any]) -> list[str]:
    error = {"code": "step-failed", "message": "ValueError: no", "step": "a", "frames": list(frames)}
    return [line.split()[-1] for line in failure(error, Path("/project"), "", "tidegate") if line.startswith("  ")]


@pytest.mark.parametrize(
    "file",
    [
        "/usr/lib/python3.11/json/decoder.py",
        "/project/.venv/lib/python3.12/site-packages/pandas/core/frame.py",
        "/usr/lib/python3/dist-packages/yaml/__init__.py",
        "<frozen importlib._bootstrap>",
    ],
)
def test_frames_of_libraries_give_way_to_the_users_own(file: str) -> None:
    assert shown(frame("/project/steps.py", "own"), frame(file, "theirs")) == ["own"]
    assert shown(frame(file, "theirs")) == ["theirs"], "where there is nothing else, they are better than nothing"
