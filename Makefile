# make train   set up .venv and train PoseMamba on the shipped motion capture
# make demo    set up .venv and lift the people of the shipped video to 3D
# make pretrain  train the shipped network for any video anew (hours)
# make test    set up .venv and run all tests
# make lint    check style, format and types

PYTHON ?= python3
CHECKPOINT ?= checkpoint/cmu
WILD ?= checkpoint/wild

BIN := .venv/bin
VIEWS := data/motion3d/cmu17_virtual_cam_source.pkl
SETUP := .venv/.installed
VIDEO := .venv/.installed-video
DETECTORS := .venv/.installed-detectors
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup train demo pretrain test lint

setup: $(SETUP)

$(SETUP): requirements.txt $(wildcard kernels/selective_scan/*.toml kernels/selective_scan/*.py kernels/selective_scan/selective_scan/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed; make PYTHON=python3.11")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@grep -v "^-e" requirements.txt > .venv/.libraries  # first, so that the kernels are built for the PyTorch that is there
	$(PIP) -r .venv/.libraries
	$(PIP) -r requirements.txt
	@$(BIN)/python -m selective_scan
	@touch $@

# Interrupted? The same command goes on where it stopped.
train: $(SETUP)
	$(BIN)/python tools/make_cmu_views.py --out $(VIEWS)
	$(BIN)/python train.py --config configs/pose3d/PoseMamba_train_cmu.yaml -c $(CHECKPOINT) \
		$(if $(wildcard $(CHECKPOINT)/latest_*.bin),--resume $(CHECKPOINT))

$(VIDEO): $(SETUP) requirements-video.txt
	$(PIP) -r requirements-video.txt
	@touch $@

$(DETECTORS): $(SETUP) requirements-detectors.txt requirements-mambapose.txt requirements-tests.txt
	$(PIP) -r requirements-detectors.txt -r requirements-tests.txt
	@touch $@

demo: $(VIDEO)
	$(BIN)/python vis.py --video sample_video.mp4

# Stop it when you like: the same command goes on, and `tools/export_weights.py` takes what there is.
pretrain: $(SETUP)
	$(BIN)/python train.py --config configs/pose3d/PoseMamba_wild.yaml -c $(WILD) \
		$(if $(wildcard $(WILD)/latest_*.bin),--resume $(WILD))
	$(BIN)/python tools/export_weights.py $(WILD)/latest_epoch.bin

# Two processes with a thread each take half the time of one with two.
test: $(SETUP) $(VIDEO) $(DETECTORS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(DETECTORS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
