"""Champion: an empty folder where there is none, else the registered bytes (shown in register's test)."""

from pathlib import Path

import pytest

from components.champion.component import champion
from tidegate.author.testing import run_component
from tidegate.errors import UsageError


def test_without_a_champion_the_folder_is_empty_and_the_version_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_STORE", str(tmp_path / "store"))
    result = run_component(champion, tmp_path, name="nobody")
    assert result.outputs == {"Output": 0}
    assert list(result.artifacts["champion"].path.iterdir()) == []
    with pytest.raises(UsageError):
        run_component(champion, tmp_path, name="../x")
