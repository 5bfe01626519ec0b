"""Presets, overrides and the strict JSON of configs."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer_async.config import (
    SIZES,
    SUITES,
    Config,
    ConfigError,
    changed,
    changed_shapes,
    from_dict,
    known_settings,
    override,
    parse_overrides,
    resolve,
    to_dict,
)


def test_atari_preset_is_the_official_one() -> None:
    config = resolve("atari", "pong", size="size200m")
    assert (config.train.steps, config.train.train_ratio) == (51_000_000, 32.0)
    assert (config.env.num_envs, config.train.batch_size, config.train.batch_length) == (16, 16, 64)
    model = config.model
    assert (model.deter, model.hidden, model.classes, model.depth) == (8192, 1024, 64, 64)
    assert (config.optim.lr, config.optim.warmup) == (4e-5, 1000)


def test_atari100k_preset_is_the_official_one() -> None:
    train, env = resolve("atari100k", "pong").train, resolve("atari100k", "pong").env
    assert (train.steps, train.train_ratio, env.num_envs) == (110_000, 256.0, 1)


@pytest.mark.parametrize(("device", "size"), [("cpu", "size1m"), ("cuda", "size12m")])
def test_the_device_chooses_the_size_when_nobody_else_does(device: str, size: str) -> None:
    assert resolve("atari", "pong", device=device).size == size
    assert resolve("atari", "pong", device=device, size="size25m").size == "size25m"


@pytest.mark.parametrize("suite", SUITES)
def test_no_preset_touches_the_fixed_hyperparameters(suite: str) -> None:
    """Suites choose sizes, batches and schedules; losses and the optimiser are the paper's.

    But for the learning rate of two small suites that are not the paper's.
    """
    config = resolve(suite, "task")
    assert config.loss == Config().loss
    rate = 3e-4 if suite in ("classic", "minigrid") else 4e-5
    assert config.optim == replace(Config().optim, lr=rate)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_change_the_five_widths_and_toy_the_number_of_latents(size: str) -> None:
    different = changed(Config(), resolve("atari", "pong", size=size))
    widths = {f"model.{name}" for name in ("deter", "hidden", "classes", "depth", "units")}
    latents = {"model.stoch"} if size == "toy" else set[str]()
    assert set(different) <= widths | latents | {"size"}


def test_overrides_win_over_size_and_suite_and_the_last_one_wins() -> None:
    config = resolve(
        "toy",
        "catch",
        size="size12m",
        overrides=["model.units=128", "train.steps=7", "train.steps=1e4", "model.deter=2_048"],
    )
    assert (config.model.units, config.model.hidden, config.train.steps) == (128, 256, 10_000)


def test_values_are_checked_together_not_one_by_one() -> None:
    config = resolve("toy", "catch", overrides=["model.blocks=3", "model.deter=24"])
    assert (config.model.blocks, config.model.deter) == (3, 24)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_siz=8", "unknown setting 'train.batch_siz' (did you mean train.batch_size"),
        ("batch_lengths=8", "(did you mean train.batch_length"),
        ("train=8", "unknown setting 'train'"),
        ("", "expected key=value"),
        ("train.batch_size", "expected key=value"),
        ("=3", "unknown setting ''"),
        ("train.batch_size=", "train.batch_size: expected a whole number, got ''"),
        ("train.batch_size=8.5", "train.batch_size: expected a whole number, got '8.5'"),
        ("train.batch_size=0", "train.batch_size must be positive, got 0"),
        ("train.batch_length=1", "train.batch_length must be at least 2, got 1"),
        ("train.steps=-5", "train.steps must be positive, got -5"),
        ("train.train_ratio=nan", "train.train_ratio: expected a number, got 'nan'"),
        ("train.train_ratio=0", "train.train_ratio must be positive"),
        ("train.seed=-1", "train.seed must be from 0 to 2147483647"),
        ("train.device=tpu", "train.device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ("train.device=cuda:x", "train.device must be"),
        (
            "train.precision=float16",
            "train.precision must be auto, float32, bfloat16, bfloat16-dense or mixed",
        ),
        ("train.compile=yes", "train.compile: expected true or false, got 'yes'"),
        ("train.keep_checkpoints=1", "train.keep_checkpoints must be at least 2"),
        ("train.grace_seconds=0", "train.grace_seconds must be positive"),
        ("train.threads=-1", "train.threads must be from 0 to 1024"),
        ("train.skip_limit=0", "train.skip_limit must be positive"),
        ("env.num_envs=0", "env.num_envs must be from 1 to 4096, got 0"),
        ("env.batch_size=99", "env.batch_size must be from 0 to env.num_envs = 16, got 99"),
        ("env.suite=toy", "env.suite is set by the first word after train, not by -s"),
        ("env.task=pong", "env.task is set by --task, not by -s"),
        ("size=tiny", "size is set by --size, not by -s"),
        ("replay.capacity=10", "replay.capacity must hold one window per environment"),
        ("replay.capacity_gb=-1", "replay.capacity_gb must be at least 0"),
        ("model.deter=100", "model.deter must be a multiple of model.blocks = 8, got 100"),
        ("model.classes=257", "model.classes must be from 2 to 256"),
        ("model.bins=254", "model.bins must be odd"),
        ("model.kernel=4", "model.kernel must be odd"),
        ("model.multipliers=", "model.multipliers must be positive whole numbers"),
        ("model.multipliers=2,0", "model.multipliers must be positive whole numbers"),
        ("model.unimix=1", "model.unimix must be at least 0 and below 1"),
        ("model.actor_max_std=0.01", "model.actor_max_std must be at least model.actor_min_std"),
        ("loss.horizon=1", "loss.horizon must be more than 1 step"),
        ("loss.return_lambda=1.5", "loss.return_lambda must be between 0 and 1"),
        ("loss.return_low=99", "percentiles with low < high"),
        ("optim.lr=0", "optim.lr must be positive"),
        ("optim.beta2=1", "optim.beta2 must be at least 0 and below 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_work(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve("atari", "pong", overrides=[override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("suite", "size", "message"),
    [
        ("atarii", None, "unknown suite 'atarii' (did you mean atari"),
        ("", None, "unknown suite '' (known: atari, "),
        ("atari", "size1", "unknown size 'size1' (did you mean size1m"),
        ("atari", "", "unknown size '' (known: tiny, "),
    ],
)
def test_unknown_suites_and_sizes_name_the_known_ones(
    suite: str, size: str | None, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(suite, "pong", size=size)
    assert message in str(error.value)


@given(st.text(max_size=60))
def test_any_text_is_a_setting_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides([text])
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.steps=10k", "train.steps", 10_000),
        ("train.steps=2.5m", "train.steps", 2_500_000),
        ("train.steps=1.1M", "train.steps", 1_100_000),
        ("train.steps=1_000k", "train.steps", 1_000_000),
        ("steps=1B", "train.steps", 10**9),
        ("lr=1e-4", "optim.lr", 1e-4),
        ("warmup=1k", "optim.warmup", 1000),
    ],
)
def test_numbers_and_keys_may_be_short(text: str, key: str, value: float) -> None:
    assert parse_overrides([text]) == {key: value}


@pytest.mark.parametrize(
    "text",
    [
        *("batch_size=8", "t=1", "lrr=1", "=1"),
        *("train.steps=k", "train.steps=1e3k", "train.steps=1 k", "train.steps=0.0001k"),
        *("train.checkpoint_seconds=5m", "train.sync=1k"),
    ],
)
def test_what_is_not_clear_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_overrides([text])


@pytest.mark.parametrize("word", ["size12m", "SIZE12M", "12m", "12M", "Size12m"])
def test_a_size_has_several_spellings(word: str) -> None:
    assert resolve("atari", "pong", size=word).size == "size12m"


@pytest.mark.parametrize("setting", ["size=tiny", "task=pong", "env.suite=atari"])
def test_what_a_run_keeps_is_refused_without_naming_flags_that_a_resume_lacks(
    setting: str,
) -> None:
    with pytest.raises(ConfigError, match="is fixed for the life of a run; start a new run"):
        override(resolve("toy", "catch"), [setting])
    with pytest.raises(ConfigError, match="is set by "):
        resolve("toy", "catch", overrides=[setting])


VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["true", "", "0", "-1", "1e400", "1,2", "auto", "\x00", "9" * 100]),
)


@given(st.sampled_from(sorted(known_settings())), VALUES)
def test_any_value_of_any_setting_is_taken_or_refused_in_one_line(key: str, value: str) -> None:
    try:
        config = resolve("atari", "pong", overrides=[f"{key}={value}"])
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", SIZES)
def test_json_round_trip(suite: str, size: str) -> None:
    config = resolve(suite, "some_task", size=size)
    assert from_dict(json.loads(json.dumps(to_dict(config), allow_nan=False))) == config


def _without(data: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    del data[part][name]
    return data


def _with(data: dict[str, Any], part: str, name: str, value: Any) -> dict[str, Any]:
    data[part][name] = value
    return data


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: _without(d, "train", "seed"), "missing key train.seed"),
        (lambda d: _with(d, "train", "sed", 1), "unknown key train.sed (did you mean seed?)"),
        (lambda d: _with(d, "train", "seed", "1"), "train.seed: expected a whole number"),
        (lambda d: _with(d, "train", "seed", True), "train.seed: expected a whole number"),
        (lambda d: _with(d, "train", "seed", -1), "train.seed must be from 0"),
        (lambda d: _with(d, "model", "unimix", None), "model.unimix: expected a number"),
        (lambda d: _with(d, "env", "task", "a\x1b[2J"), "env.task must be a name of printable"),
        (lambda d: d | {"extra": 1}, "unknown key extra"),
        (lambda d: d | {"model": []}, "expected an object"),
        (lambda d: [d], "expected an object"),
        (lambda d: None, "expected an object"),
    ],
)
def test_a_spoiled_config_file_is_refused(spoil: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(spoil(copy.deepcopy(to_dict(resolve("toy", "catch")))))
    assert message in str(error.value)


def test_a_run_of_an_earlier_version_gets_the_defaults_of_later_settings() -> None:
    config = resolve("toy", "catch")
    assert from_dict(_without(to_dict(config), "train", "capture")) == config
    assert from_dict(_without(to_dict(config), "env", "repeat")) == config


def test_settings_of_an_earlier_version_that_are_gone_are_passed_over() -> None:
    config = resolve("toy", "catch")
    data = to_dict(config)
    assert from_dict({**data, "train": {**data["train"], "eager_start": True}}) == config
    renamed = from_dict({**data, "train": {**data["train"], "precision": "amx"}})
    assert renamed.train.precision == "bfloat16-dense"
    with pytest.raises(ConfigError, match="never_was"):
        from_dict({**data, "train": {**data["train"], "never_was": True}})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON_VALUES, st.sampled_from(["size", "model", "train", "new"]))
def test_any_json_is_a_config_or_a_config_error(data: Any, key: str) -> None:
    for value in (data, to_dict(Config()) | {key: data}):
        with pytest.raises(ConfigError):
            from_dict(value)


def test_override_keeps_everything_else() -> None:
    old = resolve("toy", "catch", size="size12m", overrides=["train.seed=3"])
    new = override(old, ["train.steps=99"])
    assert changed(old, new) == {"train.steps": (old.train.steps, 99)}


@pytest.mark.parametrize(
    ("setting", "refused", "refused_without_replay"),
    [
        ("train.steps=99", False, False),
        ("train.train_ratio=7", False, False),
        ("train.batch_size=3", False, False),
        ("optim.lr=1e-3", False, False),
        ("loss.entropy=0", False, False),
        ("train.device=cuda", False, False),
        ("env.num_envs=3", True, False),
        ("replay.capacity=9999", True, False),
        ("replay.directory=/somewhere", True, False),
        ("train.batch_length=24", True, False),
        ("env.repeat=2", True, True),
        ("model.units=48", True, True),
        ("model.unimix=0.02", True, True),
    ],
)
def test_a_resume_refuses_what_changes_shapes(
    setting: str, refused: bool, refused_without_replay: bool
) -> None:
    old = resolve("toy", "catch")
    new = override(old, [setting])
    key = setting.partition("=")[0]
    assert list(changed_shapes(old, new)) == [key] * refused
    assert list(changed_shapes(old, new, drop_replay=True)) == [key] * refused_without_replay


def test_published_is_between_the_suite_and_what_is_asked_for() -> None:
    made = resolve("dmc-vision", "walker_walk", published=True)
    assert (made.size, made.env.repeat, made.train.train_ratio) == ("size12m", 2, 512.0)
    assert made.train.steps == 600_000 and made.env.num_envs == 8
    asked = resolve(
        "dmc-vision", "walker_walk", size="size1m", published=True, overrides=["env.repeat=1"]
    )
    assert (asked.size, asked.env.repeat, asked.train.train_ratio) == ("size1m", 1, 512.0)
    with pytest.raises(ConfigError, match=r"no published curve for toy .* dmc-proprio"):
        resolve("toy", "seek", published=True)


def test_a_resume_refuses_another_size_or_task() -> None:
    old = resolve("toy", "catch", size="tiny")
    assert "env.task" in changed_shapes(old, resolve("toy", "other", size="tiny"))
    assert "size" in changed_shapes(old, resolve("toy", "catch", size="size1m"))
