# Two commands do everything: `make demo` and `make test`; each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: setup demo test check slow newcomer docs benchmarks kernels clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "segpress needs Python 3.11 or newer: make PYTHON=python3.11 setup"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[openvino,tensorrt-rtx,smp,torchvision,monai,nifti,nnunet,dicom,search,nni,benchmarks,docs,dev]'
	@touch $@

demo: setup
	$(BIN)/compress run recipes/unet_int8.yaml

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

slow: setup
	$(BIN)/python -m pytest -m slow

newcomer: setup
	$(BIN)/python -m pytest -m slow tests/test_newcomer.py

kernels: setup
	$(BIN)/python -m export.kernels.library

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

benchmarks: setup
	$(BIN)/python -m benchmarks.ptq

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache
