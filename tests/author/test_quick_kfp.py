"""kfp is imported without its client, and whoever asks for the client has it all the same."""

import subprocess
import sys
from pathlib import Path

QUICKLY = "import sys\nfrom tidegate.author.quick_kfp import import_kfp_quickly\nimport_kfp_quickly()\n"
ASKED = """
import kfp
from kfp import compiler, dsl
assert "kfp.client" not in sys.modules
assert not {m for m in sys.modules if m.partition(".")[0] in ("kubernetes", "kfp_server_api")}
assert not hasattr(kfp, "no_such_thing")
from kfp import Client
assert Client is kfp.Client is kfp.client.Client
assert Client.__module__ == "kfp.client.client"
"""
ASKED_BY_ANOTHER_THREAD = """
import sys, threading, time
from tidegate.author.quick_kfp import import_kfp_quickly
first = threading.Thread(target=lambda: (import_kfp_quickly(), __import__("kfp")))
first.start()
while "kfp" not in sys.modules:
    time.sleep(0.001)
from kfp.client import Client
import kfp
first.join()
assert isinstance(Client, type) and Client is kfp.Client, Client
"""
AGAIN = """
import importlib, pickle
import kfp
assert importlib.reload(kfp) is kfp
assert "kfp.client" not in sys.modules
assert pickle.loads(pickle.dumps(kfp.Client)) is kfp.Client
"""
TWICE = """
finders = list(sys.meta_path)
import_kfp_quickly()
assert sys.meta_path == finders
"""
AS_IT_WAS = """
import sys
import kfp
before = dict(vars(kfp))
from tidegate.author.quick_kfp import import_kfp_quickly
import_kfp_quickly()
import kfp
assert vars(kfp) == before
"""
ITS_OWN_WAY = """
import kfp
assert (kfp.Client, kfp.later) == ("its own Client", "its own later")
"""
ANOTHER_FORM = """
import kfp
assert kfp.TheClient.__name__ == "Client"
assert not hasattr(kfp, "Client")
"""


def passes(code: str, folder: Path | None = None) -> bool:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode == 0


def make_kfp(folder: Path, text: str) -> Path:
    for name, body in (("kfp", text), ("kfp/client", "class Client: ...")):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(body)
    return folder


def test_kfp_is_imported_without_its_client_which_comes_when_it_is_asked_for() -> None:
    assert passes(QUICKLY + ASKED)
    assert passes(QUICKLY + AGAIN + TWICE)


def test_a_thread_that_asks_for_the_client_while_another_imports_kfp_is_given_it() -> None:
    assert passes(ASKED_BY_ANOTHER_THREAD)


def test_kfp_that_is_there_stays_as_it_is() -> None:
    assert passes(AS_IT_WAS)


def test_kfp_of_another_form_is_imported_as_it_is(tmp_path: Path) -> None:
    own = make_kfp(tmp_path, "def __getattr__(name):\n    return f'its own {name}'\n")
    assert passes(QUICKLY + ITS_OWN_WAY, own)


def test_kfp_that_names_its_client_otherwise_is_imported_with_it(tmp_path: Path) -> None:
    assert passes(QUICKLY + ANOTHER_FORM, make_kfp(tmp_path, "from kfp.client import Client as TheClient\n"))
