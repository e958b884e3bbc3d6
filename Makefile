# `make` lists the targets. Nothing is installed outside of .venv.

VENV := .venv

# Settings for the commands of the demo. Networks that Adam trains gain from one device a
# core, RUN_ENV="JAX_NUM_CPU_DEVICES=2"; Muon's matrix products are repeated on each.
RUN_ENV ?=
# Training, eval, predict and report run the same programs: what one has compiled, the others
# read from disk.
COMPILED = JAX_COMPILATION_CACHE_DIR=$(abspath $(VENV))/compiled \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
POSE_JAX = $(COMPILED) $(RUN_ENV) $(VENV)/bin/pose-jax
# A process for each core, up to four: most of the time goes into tracing, which is serial.
# Files stay whole, so that what their tests share is made once, and in their order.
PYTEST = JAX_PLATFORMS=cpu $(1)/bin/python -m pytest -q --durations 10 \
	-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The first Python that requirements.txt is made for and that really runs (a version
# manager's shim may stand in the path and not). Another one: make PYTHON=/path/to/python
PYTHON ?= $(call first_python,python3 python3.13 python3.12 python3.11,<,(3, 14))
LATEST_PYTHON ?= $(call first_python,python3.15 python3.14 python3.13 python3.12 \
	python3.11 python3,<,(4,))
first_python = $(shell for p in $(1); do \
	$$p -c "import sys; sys.exit(not (3, 11) <= sys.version_info $(2) $(3))" \
	2>/dev/null && echo $$p && break; done)

# With an NVIDIA GPU, JAX's plugin for it, of the same version as JAX itself.
JAX_GPU ?= cuda12
GPU_REQUIREMENT = $(shell command -v nvidia-smi >/dev/null 2>&1 \
	&& nvidia-smi -L 2>/dev/null | grep -q GPU && echo 'jax[$(JAX_GPU)]')

DEMO_N ?= 3000
DEMO_VAL ?= 250
DEMO_SYNTH ?= --difficulty easy --size 192x160
DEMO_CONFIG ?= configs/demo.py
DEMO_RUN ?= runs/demo
DEMO_DECODERS ?= argmax,shift,dark
DEMO_OVERRIDES ?=
DEMO_PICTURES ?= 8
DEMO_DATA ?= data/synthetic

# The detector and MultiPose's pose network, on crowds.
CROWD_N ?= 5000
CROWD_VAL ?= 500
CROWD_DATA ?= data/synthetic-crowd
CROWD_RUN ?= runs/demo-multipose
CROWD_DETECTOR_CONFIG ?= configs/detector/synthetic.py
CROWD_POSE_CONFIG ?= configs/multipose/synthetic.py:long
CROWD_OVERRIDES ?=

# Published weights for photographs of one person.
PHOTO ?=
PHOTO_WEIGHTS ?= movenet_thunder
PHOTO_OUT ?= runs/photos

.PHONY: help demo demo-hard demo-long demo-multipose demo-photos test test-slow test-fuzz \
	test-latest lint venv clean

help:
	@echo "make demo         train, evaluate and draw on synthetic people; no download"
	@echo "make demo-hard    the same on people from behind, partly hidden, cut"
	@echo "make demo-long    the hard people, more of them, trained for longer"
	@echo "make demo-multipose"
	@echo "                  a detector and MultiPose on crowds: photographs in, people out"
	@echo "make demo-photos PHOTO=a.jpg"
	@echo "                  published weights on your photographs of one person"
	@echo "make test         the tests, on the CPU"
	@echo "make test-slow    the tests that take minutes"
	@echo "make test-fuzz    the property tests, with random examples"
	@echo "make test-latest  the tests with the newest of all dependencies"
	@echo "make lint         formatting, lint and types"
	@echo "make venv         .venv with everything that the tests need"
	@echo "make clean        remove caches, build leftovers, and data and runs of the demos"

# What is there already is kept: data are not made twice, a run that was stopped goes on.
demo: $(VENV)/.base
	$(POSE_JAX) data synth --n $(DEMO_N) --val $(DEMO_VAL) --seed 0 $(DEMO_SYNTH) \
		--out $(DEMO_DATA)
	$(POSE_JAX) train --config $(DEMO_CONFIG) --run $(DEMO_RUN) $(DEMO_OVERRIDES)
	$(POSE_JAX) predict --run $(DEMO_RUN) --out $(DEMO_RUN)/predictions \
		--boxes $(DEMO_DATA)/annotations/person_keypoints_val2017.json \
		$$(ls $(DEMO_DATA)/val2017/* | head -n $(DEMO_PICTURES))
	$(POSE_JAX) eval --run $(DEMO_RUN) --decoder $(DEMO_DECODERS) > $(DEMO_RUN)/eval.txt
	$(POSE_JAX) report $(DEMO_RUN)
	@echo; sed '/^  /,$$d' $(DEMO_RUN)/eval.txt
	$(DEMO_END)

# The table above these lines is the beginning of what `eval` has printed.
define DEMO_END
@echo
@echo "AP@gt_boxes is the average precision as COCO measures it, from 0 to 1: the mean"
@echo "over ten thresholds of OKS, the similarity of predicted and true keypoints, on"
@echo "images that were not trained on, with the box of each person given. The columns"
@echo "are one network, whose heatmaps are decoded in three ways: the highest pixel,"
@echo "that moved by a quarter of a pixel, and DARK."
@echo
@echo "formulas, table by keypoint: $(DEMO_RUN)/eval.txt"
@echo "report:                      $(DEMO_RUN)/report.html"
@echo "pictures:                    $(DEMO_RUN)/predictions, $(DEMO_RUN)/pictures"
@echo "next:                        make demo-multipose"
@echo "  trains a detector and a pose network on crowds, 20 to 25 minutes on two cores,"
@echo "  then finds the people of a picture without their boxes"
endef

demo-hard:
	$(MAKE) demo DEMO_RUN=runs/demo-hard DEMO_CONFIG=configs/demo_hard.py \
		DEMO_DATA=data/synthetic-hard DEMO_SYNTH= DEMO_N=2000

demo-long:
	$(MAKE) demo DEMO_RUN=runs/demo-long DEMO_CONFIG=configs/demo_hard.py:long \
		DEMO_DATA=data/synthetic-long DEMO_SYNTH= DEMO_N=6000

demo-multipose: $(VENV)/.base
	$(POSE_JAX) data synth --n $(CROWD_N) --val $(CROWD_VAL) --seed 0 \
		--difficulty crowd --out $(CROWD_DATA)
	$(POSE_JAX) train --config $(CROWD_DETECTOR_CONFIG) --run $(CROWD_RUN)/detector \
		$(CROWD_OVERRIDES)
	$(POSE_JAX) train --config $(CROWD_POSE_CONFIG) --run $(CROWD_RUN)/pose \
		$(CROWD_OVERRIDES)
	$(POSE_JAX) predict --detector $(CROWD_RUN)/detector --run $(CROWD_RUN)/pose \
		--slots 8 --out $(CROWD_RUN)/predictions \
		$$(ls $(CROWD_DATA)/val2017/* | head -n $(DEMO_PICTURES))
	$(POSE_JAX) eval --run $(CROWD_RUN)/detector
	$(POSE_JAX) eval --run $(CROWD_RUN)/pose --flip none,plain \
		--boxes $(CROWD_RUN)/detector/eval/images/detections.json
	@echo "pictures: $(CROWD_RUN)/*/pictures and $(CROWD_RUN)/predictions"

demo-photos: $(VENV)/.base
	@test -n "$(PHOTO)" || { echo "make: no photograph: name files or a folder, \
	make demo-photos PHOTO=a.jpg"; exit 1; }
	test -d runs/$(PHOTO_WEIGHTS)/model || \
		$(POSE_JAX) weights fetch $(PHOTO_WEIGHTS) --out runs/$(PHOTO_WEIGHTS)
	$(POSE_JAX) predict --run runs/$(PHOTO_WEIGHTS) --passes 2 --out $(PHOTO_OUT) $(PHOTO)

test: $(VENV)/.full
	$(call PYTEST,$(VENV))

test-slow: $(VENV)/.full
	$(call PYTEST,$(VENV)) -m slow

# Property tests with examples of their own in every run; a failure prints how to repeat it.
test-fuzz: $(VENV)/.full
	POSE_JAX_EXAMPLES=random $(call PYTEST,$(VENV)) -m "hypothesis and not slow"

test-latest:
	$(call make_venv,$(LATEST_PYTHON),$(VENV)-latest)
	$(VENV)-latest/bin/python -m pip install -q --upgrade --upgrade-strategy eager \
		pip -e ".[data,dev]"
	$(call PYTEST,$(VENV)-latest)

lint: $(VENV)/.full
	$(VENV)/bin/ruff format --check pose_jax tests configs experiments setup.py
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

venv: $(VENV)/.full

# TensorFlow is in the full set only: training, evaluating and predicting do without it.
$(VENV)/.base: pyproject.toml requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install -q -c requirements.txt -e . $(GPU_REQUIREMENT)
	touch $@

$(VENV)/.full: $(VENV)/.base
	$(VENV)/bin/python -m pip install -q -c requirements.txt -e ".[data,dev]"
	touch $@

$(VENV)/bin/python:
	$(call make_venv,$(PYTHON),$(VENV))

define make_venv
@test -n "$(1)" || { echo "make: no Python 3.11 to 3.13 found: install one, or name \
	one with PYTHON=/path/to/python"; exit 1; }
@$(1) -c "import ensurepip" 2>/dev/null || { echo "make: $(1) cannot make virtual \
	environments: sudo apt install python3-venv"; exit 1; }
$(1) -m venv $(2)
endef

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find pose_jax tests configs experiments -name __pycache__ -prune -exec rm -rf {} +
	rm -rf data/synthetic data/synthetic-hard data/synthetic-long data/synthetic-crowd
	rm -rf runs/demo runs/demo-hard runs/demo-long runs/demo-multipose
