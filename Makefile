# The two commands: `make demo` runs real jobs, `make test` passes the tests. Both set up what they need.
VENV   := .venv
PYTHON := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
NEEDS  := gearman-job-server:/usr/sbin/gearmand gearman-tools:/usr/bin/gearman stunnel4:/usr/bin/stunnel4 zsh:/usr/bin/zsh fish:/usr/bin/fish redis-server:/usr/bin/redis-server postgresql:/usr/bin/pg_ctlcluster \
          chromium:/usr/bin/chromium prometheus:/usr/bin/prometheus tmux:/usr/bin/tmux groff-base:/usr/bin/groff
# Hundreds of processes start in a test run: each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types docs bench many chaos soak screenshots man clean programs

demo: $(STAMP)
	$(VENV)/bin/geard demo

test: $(STAMP) programs
	$(PYTHON) -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	$(VENV)/bin/mypy

# The documentation's site, in build/site; tests do not need what makes it.
docs: $(STAMP)
	@$(PYTHON) -c 'import material, mkdocstrings_handlers.python' 2>/dev/null || $(PYTHON) -m pip install -q --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict -q -f .mkdocs.yml

bench: $(STAMP)
	$(PYTHON) -m tests.bench $(ARGS)

chaos: $(STAMP) programs
	$(PYTHON) -m tests.chaos $(ARGS)

many: $(STAMP)
	$(PYTHON) -m tests.many $(ARGS)

soak: $(STAMP) programs
	$(PYTHON) -m tests.soak $(ARGS)

$(STAMP): pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "geard needs Python 3.11 or later"; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -qy --no-install-recommends python3-venv; \
	  else echo "missing package: python3-venv (apt-get install python3-venv)"; exit 1; fi; }
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

# What the tests run against; none of it is started as a service. Where we may not install, the tests that need them are skipped.
programs:
	@missing=; for need in $(NEEDS); do [ -x "$${need#*:}" ] || missing="$$missing $${need%%:*}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then \
	    policy=/usr/sbin/policy-rc.d; [ -e $$policy ] || { printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; ours=1; }; \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	    done=$$?; [ -z "$$ours" ] || rm -f $$policy; exit $$done; \
	  else echo "missing packages:$$missing (apt-get install$$missing); the tests that need them are skipped"; fi; \
	fi

# The pictures in docs/images, from the test that looks at the dashboard.
screenshots: $(STAMP) programs
	@mkdir -p docs/images
	SCREENSHOTS=$(CURDIR)/docs/images $(PYTHON) -m pytest -q tests/test_dashboard.py -k what_is_wrong
	@$(PYTHON) -c 'import PIL' 2>/dev/null || $(PYTHON) -m pip install -q --disable-pip-version-check pillow
	$(PYTHON) -c 'import glob; from PIL import Image; \
	  [Image.open(p).convert("RGB").quantize(128).save(p, optimize=True) for p in glob.glob("docs/images/*.png")]'

# The man pages, from the code; a test says when they are not current.
man: $(STAMP)
	$(PYTHON) -m geard.reference.man docs/man

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
