.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Old on purpose: protobuf 5.29 gencode runs on runtimes 5.29 to 7.x; newer gencode refuses older
# runtimes. It lives apart from the project's environment because it would drag protobuf down.
PROTO_VENV := .venv-protos
PROTOC := $(PROTO_VENV)/bin/python -m grpc_tools.protoc -Iprotos
PROTOS := $(sort $(wildcard protos/redserve/v1/*.proto))
# libgomp spins at its barriers unless told to sleep, and starves the other processes of a small machine.
export OMP_WAIT_POLICY := passive

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv (once; about 6 GB because of PyTorch)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"REDServe needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}; set PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): PyTorch is the large part (several GB); a CPU-only index can be named by pip's own settings."
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --constraint constraints.txt --editable ".[all]" --group dev
	@touch $@

demo: setup ## Start the services, ask about pictures by gRPC and OpenAI client, show the timeline
	@$(BIN)/python examples/demo.py

test: setup ## All tests that need no GPU and no cluster
	@$(BIN)/python -m pytest -m "not gpu and not cluster and not node and not observability and not browser"

test-gpu: setup ## Tests that need a CUDA device
	@$(BIN)/python -m pytest -m gpu

control-plane: setup ## Build the programs of a Kubernetes cluster from Go modules into the user's cache
	@$(BIN)/python -m tools.kubernetes.build all

test-cluster: setup ## Tests on a real control plane, which is built from Go modules at first use
	@$(BIN)/python -m tools.kubernetes.build cluster
	@$(BIN)/python -m tools.kubernetes.netns -- $(BIN)/python -m pytest -m cluster tests/kubernetes tests/helm

test-node: setup ## Tests on real nodes (root; says what is missing): containers from the images
	@if $(BIN)/python -m tools.kubernetes.node_space --check; then \
		$(BIN)/python -m tools.kubernetes.build node >/dev/null && $(BIN)/python -m tools.kubernetes.node_images; fi
	@$(BIN)/python -m tools.kubernetes.node_space -- $(BIN)/python -m pytest -m node tests/kubernetes/test_node.py

test-observability: setup ## Tests with a real Prometheus (built from its Go module at first use) and Chromium
	@$(BIN)/python -m tools.kubernetes.build observability >/dev/null
	@$(BIN)/python -m pytest -m "observability or browser" tests/observability tests/page

images: setup ## Build the container images (docker, podman or buildah; REGISTRY=, TAG=)
	@$(BIN)/python -m tools.kubernetes.images $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(TAG),--tag $(TAG))

check: lint types layers protos-lint docs-check dashboards-check ## What CI checks next to the tests

lint: setup ## Ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## mypy, strict
	@$(BIN)/mypy

layers: setup ## import-linter: who may import whom
	@$(BIN)/lint-imports --no-logo

$(PROTO_VENV)/.installed:
	@$(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python -m pip install --quiet "grpcio-tools==1.71.2" "mypy-protobuf==3.7.0" "setuptools<81"
	@touch $@

protos: $(PROTO_VENV)/.installed ## Regenerate redserve/v1 from protos/
	@PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" $(PROTOC) --python_out=. --mypy_out=quiet:. $(PROTOS)
	@PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" $(PROTOC) --grpc_python_out=. --mypy_grpc_out=quiet:. $$(grep -l '^service' $(PROTOS))

protos-lint: setup ## buf lint of protos/
	@$(BIN)/buf lint

protos-check: protos protos-lint ## Fail when redserve/v1 is stale
	@git diff --exit-code -- redserve/v1 || { echo "redserve/v1 is stale: run 'make protos' and commit"; exit 1; }

docs: setup ## Regenerate the generated pages of docs/
	@$(BIN)/python -m tools.docs

docs-check: setup ## Fail when a generated page of docs/ is stale
	@$(BIN)/python -m tools.docs --check

dashboards: setup ## Regenerate the Grafana dashboards of the Helm chart
	@$(BIN)/python -m tools.dashboards

dashboards-check: setup ## Fail when a dashboard is stale
	@$(BIN)/python -m tools.dashboards --check

screenshots: setup ## Take the pictures of the page in docs/images anew (needs Chromium)
	@$(BIN)/python -m tools.screenshots

bench: setup ## Measure encode and prefill overlap; writes benchmarks/results
	@$(BIN)/python -m benchmarks.overlap

bench-operator: setup ## Measure the operator on fake GPU nodes; writes benchmarks/results
	@$(BIN)/python -m tools.kubernetes.build >/dev/null
	@$(BIN)/python -m benchmarks.operator

bench-transport: setup ## Measure every data path beside memcpy and a raw socket; writes benchmarks/results
	@$(BIN)/python -m benchmarks.transport

bench-tracing: setup ## Measure what tracing costs; writes benchmarks/results
	@$(BIN)/python -m benchmarks.tracing

demo-model: setup ## Train the demo model again (CPU, under an hour)
	@$(BIN)/python -m demo_model --threads 2

clean: ## Remove environments and caches
	@rm -rf $(VENV) $(PROTO_VENV) .hypothesis .pytest_cache .mypy_cache .ruff_cache

.PHONY: control-plane help setup demo test test-gpu test-cluster test-node test-observability check lint types layers protos protos-lint protos-check docs docs-check dashboards dashboards-check bench bench-operator bench-transport bench-tracing demo-model clean images
