"""Work that begins when the session does, all of it together: pods take seconds of waiting, not of this machine.

``@ahead(work)`` on a test, or on a case of one; the fixture ``result`` is what ``work(ground)`` came to.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster import setting
from tests.cluster.ground import Ground

Work = Callable[[Ground], Any]


def ahead(work: Work) -> pytest.MarkDecorator:
    return pytest.mark.ahead.with_args(work)  # a mark that is called with a function would decorate it


def begin(items: list[pytest.Item], ground: Ground) -> Iterator[dict[str, "Future[Any]"]]:
    """Begin the work of all tests that are not skipped."""
    pool = ThreadPoolExecutor(setting.AT_ONCE)
    marks = {i.nodeid: i.get_closest_marker("ahead") for i in items if not i.get_closest_marker("skip")}
    # refusals, which stand last, wait longest
    yield {name: pool.submit(mark.args[0], ground) for name, mark in reversed(marks.items()) if mark}
    pool.shutdown(cancel_futures=True)
