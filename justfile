# `just` comes with the dev extra; every recipe uses the tools that are installed beside it.

beside := parent_directory(just_executable())
bin := if path_exists(beside / "pytest") == "true" { beside } else { justfile_directory() / ".venv/bin" }

# list the recipes
default:
    @just --list --unsorted

# format and sort imports
fmt:
    {{ bin }}/ruff format
    {{ bin }}/ruff check --select I --fix --quiet

# ruff: format, bugs, security
lint:
    {{ bin }}/ruff format --check
    {{ bin }}/ruff check

# pyright
types:
    {{ bin }}/pyright --pythonpath {{ bin }}/python

# who may import whom
imports:
    {{ bin }}/python -m pytest -q tests/test_imports.py

# everything but the slow tests, such as `just test -k replay`; processes side by side take tests in turn
test *args:
    {{ bin }}/python -m pytest -n auto --maxprocesses 4 --dist worksteal {{ args }}

# write the pages of the docs that are made from the code
docs:
    {{ bin }}/dreamer-async settings --markdown > docs/settings.md
    {{ bin }}/python -m dreamer_async.cli.api > docs/api.md
    {{ bin }}/python -m dreamer_async.tui.show.metrics_page > docs/metrics.md

# the source distribution and both wheels: of Python alone, and with native functions for x86-64-v3 and v4 (extra wheels)
wheels out="dist":
    {{ bin }}/python -m build --outdir {{ out }}
    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true {{ bin }}/python -m build --wheel --outdir {{ out }}/linux
    PATH={{ bin }}:$PATH {{ bin }}/auditwheel repair --disable-isa-ext-check --wheel-dir {{ out }} {{ out }}/linux/*.whl
    rm -r {{ out }}/linux

# build the web site from docs/ into site/; fails on a broken link (extra docs)
site: docs
    {{ bin }}/zensical build --clean --strict

# draw the dashboard of a finished run as a GIF, such as `just moving-picture runs/NAME docs/pictures/moving.gif`; with `--page losses` one page as a PNG (extra dev)
moving-picture run file="moving.gif" *args:
    {{ bin }}/python -m dreamer_async.tui.moving {{ args }} {{ run }} {{ file }}

# what must hold before a commit
check: lint types imports test

# compare with the recorded numbers of the official code (ORACLE_DIR=... for others)
oracle *args:
    {{ bin }}/python -m pytest -m oracle {{ args }}

# the whole fault matrix, hours: 1,000 kills, 1e6 samples, 2,000 examples per reader, soaking
faults *args:
    FAULT_KILLS=${FAULT_KILLS:-1000} FAULT_SAMPLES=${FAULT_SAMPLES:-1000000} FAULT_EXAMPLES=${FAULT_EXAMPLES:-2000} {{ bin }}/python -m pytest -m faults {{ args }}

# a real run under disturbance, such as `just soak 60 toy` or `just soak 60 gym --task Taxi-v4`
soak minutes="60" *args="toy":
    {{ bin }}/python tests/soak.py --minutes {{ minutes }} {{ args }}

# installs the oldest and the newest PyTorch that are allowed, GBs each, and trains with them (VERSIONS_DIR=FOLDER keeps them)
versions *args:
    {{ bin }}/python -m pytest -m versions tests/releases/test_versions.py {{ args }}

# the tests that take minutes
slow *args:
    {{ bin }}/python -m pytest -m slow {{ args }}

# train, such as `just train atari --task breakout`
train *args="atari":
    {{ bin }}/dreamer-async train {{ args }}

# attach the dashboard to the newest run, or to the one named
watch *args="last":
    {{ bin }}/dreamer-async watch {{ args }}

# how fast the parts of a run are here, such as `just bench learner --suite toy --size tiny`
bench *args="all":
    {{ bin }}/dreamer-async bench {{ args }}

# draw the pictures of docs/learning.md anew from the CSVs beside them (extra plots)
learning-report *args:
    {{ bin }}/python -m dreamer_async.scores.pictures {{ args }}

# what a GPU must show, in under ten minutes: tests, ceilings, updates, policy, whole runs (--help)
gpu-check *args:
    {{ bin }}/python -m dreamer_async.bench.check {{ args }}

# the CUDA build of PyTorch on a simulated card, before a release: 740 MB of wheels, then minutes for each size that is compiled anew (--dir, --venv, -k overlap)
gpu-sim *args:
    {{ bin }}/python -m tests.gpu_sim {{ args }}
