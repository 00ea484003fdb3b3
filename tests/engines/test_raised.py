"""What a traceback at the end of a log says."""

import pytest

from tidegate.engines.files import raised

TRACE = """before
Traceback (most recent call last):
  File "/usr/lib/runpy.py", line 3, in run
    code()
    ^^^^^^
  File "x.py", line 8, in fail
    raise ValueError(text)
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (TRACE + "ValueError: it's\nbroken", "ValueError: it's\nbroken"),
        (TRACE + "kfp.Problem", "kfp.Problem"),
        (TRACE + "ValueError: first\n\nDuring handling\n\n" + TRACE + "KeyError: 'k'", "KeyError: 'k'"),
        (TRACE + "ValueError: once\n== attempt 2\nkilled quietly", ""),
        ("no traceback", ""),
        ("Traceback (most recent call last):\n", ""),
        (TRACE, ""),
    ],
)
def test_the_error_is_what_stands_behind_the_last_frame(text: str, wanted: str) -> None:
    assert raised(text) == wanted
