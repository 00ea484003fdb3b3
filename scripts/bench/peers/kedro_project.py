"""Kedro: the files of a project whose ``kedro run --params x=X`` runs the chain. One process."""

_REGISTRY = """from kedro.pipeline import node, pipeline


def add(a):
    return a + 1


def register_pipelines():
    nodes = [node(add, f"v{i}" if i else "params:x", f"v{i + 1}", name=f"add-{i}") for i in range(STEPS)]
    return {"__default__": pipeline(nodes)}
"""
_PYPROJECT = """[tool.kedro]
package_name = "bench"
project_name = "bench"
kedro_init_version = "1.7.0"
"""


def files(n: int) -> dict[str, str]:
    """Text by path."""
    return {
        "pyproject.toml": _PYPROJECT,
        "conf/base/catalog.yml": "{}\n",
        "conf/base/parameters.yml": "x: 0\n",
        "conf/local/.gitkeep": "",
        "src/bench/__init__.py": "",
        "src/bench/settings.py": "",
        "src/bench/pipeline_registry.py": _REGISTRY.replace("STEPS", str(n)),
    }
