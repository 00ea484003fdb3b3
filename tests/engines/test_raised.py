"""What a traceback at the end of a log says."""

import pytest

from tidegate.engines.raised import raised

TRACE = """before
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "/usr/lib/python3.11/runpy.py", line 3, in run
    code()
    ^^^^^^
  File "/venv/lib/python3.11/site-packages/kfp/dsl/executor.py", line 453, in execute
    result = self.func(**func_kwargs)
  File "/app/x.py", line 8, in fail
    raise ValueError(text)
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (TRACE + "ValueError: it's\nbroken", "ValueError: it's\nbroken"),
        (TRACE + "kfp.Problem", "kfp.Problem"),
        (TRACE + "ValueError: first\n\nDuring handling\n\n" + TRACE + "KeyError: 'k'", "KeyError: 'k'"),
        (TRACE + "ValueError: once\n== attempt 2\nkilled quietly", None),
        (TRACE + "ValueError: no\n[KFP Executor 1 INFO]: read late\n{\n}", "ValueError: no"),
        (TRACE + "ValueError: no\n[KFP Executor 1 INFO]: late\n== attempt 2\nkilled quietly", None),
        ("no traceback", None),
        ("Traceback (most recent call last):\n", None),
        (TRACE, None),
    ],
)
def test_the_error_is_what_stands_behind_the_last_frame(text: str, wanted: str | None) -> None:
    found = raised(text)
    assert (found and found.said) == wanted


def test_its_frames_are_those_of_the_author_and_not_of_what_called_them() -> None:
    found = raised(TRACE + "ValueError: no")
    assert found
    assert found.frames == [{"file": "/app/x.py", "line": 8, "function": "fail", "code": "raise ValueError(text)"}]


def test_a_frame_without_code_and_one_without_a_function_are_frames_too() -> None:
    trace = 'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\n  File "y.py", line 2\n'
    found = raised(trace + "    def f(:\n          ^\nSyntaxError: invalid syntax")
    assert found
    assert found.frames == [
        {"file": "<string>", "line": 1, "function": "<module>", "code": ""},
        {"file": "y.py", "line": 2, "function": "<module>", "code": "def f(:"},
    ]
