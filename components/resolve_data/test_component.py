"""Its promises are those of tidegate.data: tests/data/test_dvc.py runs it on a real repository."""

from pathlib import Path

import pytest

from components.resolve_data.component import resolve_data
from tidegate.author.testing import run_component
from tidegate.errors import UsageError


def test_what_is_no_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run_component(resolve_data, tmp_path, reference="dvc+nowhere")
