#!/usr/bin/env bash
# Rewrite requirements/*.txt, the exact hashed locks of the demo and test environments.
# The demo lock is constrained by the test lock, so that both environments hold the same versions.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
lock() {
  "$uv" pip compile pyproject.toml --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate "$@"
}
demo=(--extra kfp --extra mlflow --extra data --extra sklearn --extra serve)
lock "${demo[@]}" --extra argo --extra dvc --extra transformers --group pyproject.toml:test -o requirements/test.txt
lock "${demo[@]}" -c requirements/test.txt -o requirements/demo.txt
