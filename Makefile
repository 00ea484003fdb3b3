# make demo: the main job, end to end, with a summary · make test: every promise · make test-cluster: those that need a cluster · make check: style, types, layers
PYTHON ?= python3.11
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
CLUSTER ?= $(abspath $(wildcard ../shared/cluster))

.PHONY: demo test test-cluster check cover golden lock clean

demo: $(VENV)/demo.stamp
	@$(BIN)/python scripts/demo.py

test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# Starts the cluster in $(CLUSTER) where there is one, else takes what KUBECONFIG and tests/cluster/README.md say.
test-cluster: $(VENV)/test.stamp
	@$(if $(CLUSTER),$(CLUSTER)/cluster up k8s minio argo && eval "$$($(CLUSTER)/cluster env)" && \
	  export TIDEGATE_TEST_MINIO=$${TIDEGATE_TEST_MINIO:-http://minioadmin:minioadmin@10.97.0.1:9000} \
	  TIDEGATE_TEST_BUILD="$(CLUSTER)/cluster image" &&) \
	  TIDEGATE_TEST_CLUSTER=1 $(BIN)/python -m pytest -n 0 $(CLUSTER_ARGS) tests/cluster

check: $(VENV)/test.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

cover: $(VENV)/test.stamp
	@$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-report=term

golden: $(VENV)/test.stamp
	@$(BIN)/python scripts/golden.py

lock: $(VENV)/test.stamp
	@scripts/lock.sh

clean:
	rm -rf $(VENV) .tidegate

# One environment: the demo's packages first, the test packages (same versions, torch among them) on top.
$(BIN)/uv:
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.11 is needed; where is it? make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@grep -A999 '^uv==' requirements/test.txt | awk '/^[a-z]/ && n++ {exit} {print}' > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.txt

$(VENV)/%.stamp: requirements/%.txt pyproject.toml | $(BIN)/uv
	@echo "installing requirements/$*.txt ..."
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/$*.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@
