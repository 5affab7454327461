# make train   set up .venv and train PoseMamba on the shipped motion capture
# make demo    set up .venv and lift the people of the shipped video to 3D
# make pretrain  train the shipped network for any video anew (hours)
# make train-mambapose  render people, and train MambaPose on them beside a ViTPose of its size
# make test    set up .venv and run the tests
# make weekly  run the tests that take long, and all under the oldest and the newest of what is required
# make lint    check style, format and types

PYTHON ?= python3
CHECKPOINT ?= checkpoint/cmu
WILD ?= checkpoint/wild
MAMBAPOSE ?= checkpoint/mambapose

BIN := .venv/bin
VIEWS := data/motion3d/cmu17_virtual_cam_source.pkl
SETUP := .venv/.installed
VIDEO := .venv/.installed-video
DETECTORS := .venv/.installed-detectors
IMAGES := .venv/.installed-mambapose
# uv installs in a quarter of pip's time. A mirror that only pip knows? make PIP=".venv/bin/python -m pip install"
PIP ?= $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: setup train demo pretrain train-mambapose test weekly lint

setup: $(SETUP)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed; make PYTHON=python3.11")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"

$(SETUP): requirements.txt $(wildcard kernels/selective_scan/*.toml kernels/selective_scan/*.py kernels/selective_scan/selective_scan/csrc/*) | $(BIN)/uv
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

$(VIDEO): $(SETUP) requirements-video.txt | $(BIN)/uv
	$(PIP) -r requirements-video.txt
	@touch $@

$(DETECTORS): $(SETUP) requirements-detectors.txt requirements-export.txt requirements-mambapose.txt requirements-tests.txt | $(BIN)/uv
	$(PIP) -r requirements-detectors.txt -r requirements-tests.txt
	@touch $@

demo: $(VIDEO)
	$(BIN)/python vis.py --video sample_video.mp4

# Stop it when you like: the same command goes on, and `tools/export_weights.py` takes what there is.
pretrain: $(SETUP)
	$(BIN)/python train.py --config configs/pose3d/PoseMamba_wild.yaml -c $(WILD) \
		$(if $(wildcard $(WILD)/latest_*.bin),--resume $(WILD))
	$(BIN)/python tools/export_weights.py $(WILD)/latest_epoch.bin

$(IMAGES): $(VIDEO) requirements-mambapose.txt | $(BIN)/uv
	$(PIP) -r requirements-mambapose.txt
	@touch $@

# A training in a folder, unless it is finished: $(call people-training,FOLDER,CONFIG,MORE)
people-training = $(if $(wildcard $(1)/scores.json),,$(BIN)/python train.py --config configs/mambapose/$(2).yaml -c $(1) \
	$(if $(wildcard $(1)/latest_*.bin),--resume $(1)) dt_file=quick.store joints=h36m17 $(3))
KEYPOINTS := epochs=3 lr_decay=0.3
SPACE := epochs=2 lr_decay=0.3 finetune=True

# Keypoints first, then joints in space from the same weights. Interrupted? The same command goes on.
train-mambapose: $(IMAGES)
	$(BIN)/python tools/render_people.py --out data/rendered/quick.store --crops 8000 --test-crops 1000
	$(call people-training,$(MAMBAPOSE)/2d,MambaPose_nano_2d,$(KEYPOINTS))
	$(call people-training,$(MAMBAPOSE)/3d,MambaPose_nano_3d,$(SPACE) -p $(MAMBAPOSE)/2d)
	$(call people-training,$(MAMBAPOSE)/2d_vitpose,ViTPose_nano_2d,$(KEYPOINTS))
	$(call people-training,$(MAMBAPOSE)/3d_vitpose,ViTPose_nano_3d,$(SPACE) -p $(MAMBAPOSE)/2d_vitpose)
	$(BIN)/python tools/curves.py "MambaPose (RGB, flow, depth)=$(MAMBAPOSE)/2d" "ViTPose (RGB)=$(MAMBAPOSE)/2d_vitpose" \
		--out $(MAMBAPOSE)/curves_2d.png
	$(BIN)/python tools/curves.py "MambaPose (RGB, flow, depth)=$(MAMBAPOSE)/3d" "ViTPose (RGB)=$(MAMBAPOSE)/3d_vitpose" \
		--out $(MAMBAPOSE)/curves_3d.png

# Of one thread each, and one more than two cores, since some wait for servers and processes.
test: $(SETUP) $(VIDEO) $(DETECTORS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile

weekly:
	.ci/weekly

lint: $(DETECTORS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
