# Everything a developer or an operator types. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin

ARGS ?=
PYTEST_ARGS ?=
SOAK_KILLS ?= 1000
SOAK_FOLDER ?= soak
SOAK_SEEDS ?= 1..300
SOAK_BUG_SEEDS ?= 12

.PHONY: help setup demo test check bench soak clean lock upgrade format boards previews docs

help: ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: ## make .venv with everything a developer needs; the second run is instant
	@scripts/setup.sh dev

demo: ## 390 devices on this machine, live: make demo ARGS="--for 60s --json"
	@scripts/setup.sh demo
	@$(BIN)/fleet demo $(ARGS)

test: setup ## install real components when root, then all tests: make test PYTEST_ARGS="-k ingest"
	@scripts/system.sh
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: setup ## format, lint, types, import rules, locks, wheels, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.tidy
	$(BIN)/python -m scripts.locks check
	$(BIN)/python -m scripts.wheels

bench: setup ## CPU per message, edge footprint, press to notification, start
	$(BIN)/fleet bench ingest $(ARGS)
	$(BIN)/fleet bench edge $(ARGS)
	$(BIN)/fleet bench press $(ARGS)
	$(BIN)/fleet bench start $(ARGS)

soak: setup ## chaos until 1,000 kills are counted; goes on where it stopped: make soak SOAK_KILLS=5000
	$(BIN)/fleet chaos --kills $(SOAK_KILLS) --resume $(SOAK_FOLDER) --devices nursing_room=180 --devices bike=10 \
		--speed 10 --presses-per-s 8 --json $(ARGS)
	$(BIN)/fleet simulate --seeds $(SOAK_SEEDS) --json
	$(BIN)/fleet simulate --profile squall --bugs --seeds 1..$(SOAK_BUG_SEEDS) --found-min 28 --json

format: setup ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

boards: setup ## write the Grafana boards the tests compare with
	$(BIN)/python -m dashboards.golden
	$(BIN)/python -m dashboards.alert_rules

previews: setup ## draw the boards' pictures of the docs from a made-up day in a real InfluxDB
	for language in zh en; do $(BIN)/fleet dashboards preview --sample build/sample --now 2026-11-20T19:00 \
		--language $$language --out docs/images/boards/$$language --scale 0.7 --kilobytes-max 150 --no-pages; done

docs: setup ## write the pages that are made from tables
	$(BIN)/python -m cli.lifecycle_docs

lock: setup ## resolve the locks anew, keeping versions that still fit
	$(BIN)/python -m scripts.locks write

upgrade: setup ## resolve the locks anew with the newest versions
	$(BIN)/python -m scripts.locks write --upgrade

clean: ## remove everything that can be made again
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .stamps
	rm -rf cloud/web/static/vendor
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
