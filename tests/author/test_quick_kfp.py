"""kfp is imported without its client, and whoever asks for the client has it all the same."""

import subprocess
import sys

ASKED = """
import sys
from tidegate.author.quick_kfp import import_kfp
import_kfp()
import kfp
from kfp import compiler, dsl
assert "kfp.client" not in sys.modules
assert not {m for m in sys.modules if m.partition(".")[0] in ("kubernetes", "kfp_server_api")}
assert not hasattr(kfp, "no_such_thing")
from kfp import Client
assert Client is kfp.Client is kfp.client.Client
assert Client.__module__ == "kfp.client.client"
"""
AS_IT_WAS = """
import sys
import kfp
before = dict(vars(kfp))
from tidegate.author.quick_kfp import import_kfp
import_kfp()
assert vars(kfp) == before
"""
ABSENT = """
import sys
sys.modules["kfp"] = None
from tidegate.author.quick_kfp import import_kfp
import_kfp()
assert "kfp.client" not in sys.modules
"""


def passes(code: str) -> bool:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode == 0


def test_kfp_is_imported_without_its_client_which_comes_when_it_is_asked_for() -> None:
    assert passes(ASKED)


def test_kfp_that_is_there_or_is_not_stays_as_it_is() -> None:
    assert passes(AS_IT_WAS)
    assert passes(ABSENT)
