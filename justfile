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

# everything but the slow tests, such as `just test -k replay`
test *args:
    {{ bin }}/python -m pytest {{ args }}

# what must hold before a commit
check: lint types imports test

# compare with the recorded numbers of the official code (ORACLE_DIR=... for others)
oracle *args:
    {{ bin }}/python -m pytest -m oracle {{ args }}

# kills, full disks and other injected faults, the slow ones too
faults *args:
    {{ bin }}/python -m pytest -m faults {{ args }}

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
