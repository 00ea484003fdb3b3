"""Write the compiled forms beside each pipeline: ``pipelines/NAME/ir.yaml`` and ``argo.yaml``. CI refuses a difference.

``golden.py`` writes, ``golden.py --check`` says which file differs.
"""

import sys
from pathlib import Path

import yaml

from tidegate.engines.argo.dump import dump
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.workflow import PLAN_ANNOTATION, workflow_template
from tidegate.ir.write import to_yaml
from tidegate.prepared import prepare

ROOT = Path(__file__).parents[1]
HEAD = "# Compiled by scripts/golden.py; edit pipeline.py instead.\n"


def compiled(pipeline: Path) -> dict[str, str]:
    """The files of one pipeline, with families in the place of images and without the packed definition."""
    prepared = prepare(str(pipeline / "pipeline.py"), fresh=True)
    packed = Packed(prepared.definition.spec, prepared.definition.platforms or {})
    body = workflow_template(prepared.plan.name, packed, ArgoSettings(image="tidegate.invalid/base"))
    body["spec"]["podMetadata"]["annotations"][PLAN_ANNOTATION] = f"packed: {prepared.plan.digest}"
    return {"ir.yaml": HEAD + to_yaml(prepared.definition), "argo.yaml": HEAD + dump([body])}


def main() -> int:
    """Write, or check."""
    different = []
    for pipeline in sorted(p.parent for p in ROOT.glob("pipelines/*/pipeline.py")):
        for name, text in compiled(pipeline).items():
            yaml.safe_load(text)
            file = pipeline / name
            if not file.exists() or file.read_text() != text:
                different.append(str(file.relative_to(ROOT)))
                if "--check" not in sys.argv:
                    file.write_text(text)
    print("\n".join(different) or "nothing differs")
    return 1 if different and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
