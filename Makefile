# `make serve` and `make test` do all set-up themselves.
VENV ?= .venv
PY := $(VENV)/bin/python
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
EXTRA := $(if $(GPU),gpu,cpu)
# uv does not read pip's settings; this passes on the local folder of wheels that pip is configured to use.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Some environments forbid Python to write bytecode. pytest would then rewrite every test file in each run, which doubles `make check`.
export PYTHONDONTWRITEBYTECODE =
# Without a local folder the CPU build of torch comes from PyTorch's own index.
TORCH := $(if $(GPU),,$(if $(UV_FIND_LINKS),,--torch-backend cpu))
CONFIG ?= pocket
DATA ?= ../shared/data

.PHONY: serve test clients client-sdks check style types units install demo monitoring bench-flows bench-cost bench-front bench-hostile chaos fuzz simulate-cluster audit clean

serve: install
	$(VENV)/bin/stepdown serve $(CONFIG)

# First what needs no Ray, on both cores; then one ladder at a time.
test: install client-sdks
	$(PY) -m pytest -n 2 --dist worksteal -m "not ray and not ladder and not alone"
	$(PY) -m pytest -m "ray or ladder or alone"

# In parallel: without its cache, mypy keeps one core busy for as long as the tests keep two.
check: install
	@$(MAKE) --no-print-directory -j3 style types units

style:
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-cache

types:
	$(VENV)/bin/mypy

# Runs every client as it is against a ladder, and prints what passed; installs them into .clients (4 GB), which needs npm.
# CLIENTS: beginnings of names, to run some only
clients: install
	$(PY) -m tests.clients.run $(CLIENTS)

# The SDKs that install in seconds. Where that fails, their tests are skipped and say so.
client-sdks: install
	-$(PY) -m tests.clients.environment sdks $(if $(shell command -v npm),sdks-js)

units:
	$(PY) -m pytest -n 2 --dist worksteal -m "not ray and not ladder and not slow"

demo: install
	$(VENV)/bin/stepdown demo

bench-flows: install
	$(PY) -m benchmarks.flows

# Checks reported costs on a live ladder while processes are killed; needs PostgreSQL, Prometheus and Chromium (Debian's packages)
bench-cost: install
	$(PY) -m benchmarks.ledger
	$(PY) -m pytest tests/deployments/ledger/test_budgets.py tests/deployments/costs/test_page.py
	$(PY) -m benchmarks.cost

# Speed beside stock Ray Serve LLM on the same models, and beside LiteLLM; needs wrk. PARTS: front litellm decide growth soak
bench-front: install
	$(PY) -m benchmarks.speed $(PARTS)

# MINUTES in which one client sends only hostile requests while another sends good ones, on the pocket ladder
bench-hostile: install
	$(PY) -m benchmarks.hostile --minutes $(or $(MINUTES),10)

# MINUTES of random faults while CLIENTS send requests; LADDER is echo or pocket
chaos: install
	$(PY) -m benchmarks.chaos --minutes $(or $(MINUTES),20) --clients $(or $(CLIENTS),32) --config $(or $(LADDER),echo)

# Sends CASES generated requests to the wire parser, the flows and the endpoint
fuzz: install
	$(PY) -m benchmarks.fuzz --cases $(or $(CASES),100000)

simulate-cluster: install
	$(PY) -m benchmarks.simulation $(DATA)

# Lists known vulnerabilities of the installed packages; asks the package index, so it is not part of check or test.
audit: install
	$(VENV)/bin/uv tool run pip-audit==2.10.1 --skip-editable --path "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# Starts Prometheus for the Ray of this machine; PORT is Prometheus's port
monitoring: install
	$(PY) -m deployments.monitoring.prometheus --port $(or $(PORT),9090)

install: $(VENV)/.installed-$(EXTRA)

$(VENV)/bin/uv:
	python3 -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check uv

# Compiles bytecode once, here; otherwise each of a dozen processes compiles PyTorch and vLLM whenever the ladder starts.
$(VENV)/.installed-$(EXTRA): pyproject.toml | $(VENV)/bin/uv
	$(VENV)/bin/uv pip install -q --compile-bytecode --python $(PY) $(TORCH) -e ".[$(EXTRA),embed,surprisal,distil,dev]"
	touch $@

clean:
	rm -rf $(VENV) .clients
