# make train   set up .venv and train PoseMamba on the shipped motion capture
# make test    set up .venv and run all tests

PYTHON ?= python3
CHECKPOINT ?= checkpoint/cmu

BIN := .venv/bin
VIEWS := data/motion3d/cmu17_virtual_cam_source.pkl
LATEST := $(CHECKPOINT)/latest_epoch.bin
SETUP := .venv/.installed

.PHONY: setup train test

setup: $(SETUP)

$(SETUP): requirements.txt $(wildcard kernels/selective_scan/*.toml kernels/selective_scan/*.py kernels/selective_scan/selective_scan/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed; make PYTHON=python3.11")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@grep -v "^-e" requirements.txt > .venv/.libraries  # first, so that the kernels are built for the PyTorch that is there
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/.libraries
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m selective_scan
	@touch $@

# Interrupted? The same command goes on where it stopped.
train: $(SETUP)
	$(BIN)/python tools/make_cmu_views.py --out $(VIEWS)
	$(BIN)/python train.py --config configs/pose3d/PoseMamba_train_cmu.yaml -c $(CHECKPOINT) \
		$(if $(wildcard $(LATEST)),--resume $(LATEST))

test: $(SETUP)
	$(BIN)/python -m pytest
