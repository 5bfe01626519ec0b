"""What `resume` may be told of a run; refused is what would have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dreamer_async.cli.words.task import find_task
from dreamer_async.cli.words.view import as_view
from dreamer_async.config import Config, EnvConfig, parse_overrides
from dreamer_async.config.schema import ConfigError
from dreamer_async.store.run_dir import RunDir


def check_ends(
    run: RunDir, old: Config, settings: Sequence[str], *, moved: bool, online: bool
) -> None:
    """Refuse an end that would not count: steps without environments, updates with them.

    `moved` says that --updates was given, `online` that the run is to step environments.
    """
    given = parse_overrides(settings)
    updates = given.get("train.updates", old.train.updates)
    if online and "train.updates" in given:
        raise ConfigError("--updates is for learning without environments, not with them")
    if moved and not (old.replay.source or old.train.updates):
        raise ConfigError(
            f"--updates is for runs of `learn`; -s train.updates={updates} lets {run.name} "
            "continue without its environments"
        )
    if updates and not online and "train.steps" in given:
        raise ConfigError(
            f"--steps has no effect without environments: --updates moves the end of {run.name}, "
            "and --online lets it step them"
        )


def with_environment(run: RunDir, old: Config, word: str, args: list[str] | None) -> EnvConfig:
    """The environment that a run from now on steps, which has learned from a folder so far."""
    from dreamer_async import envs

    if old.env.suite != "session" or not old.replay.source:
        raise ConfigError(f"{run.name} has its environment, {old.env.suite}/{old.env.task}")
    suite, task = find_task(word)
    given = parse_overrides(as_view(args, None)).get("env.args", {})
    new = replace(old.env, suite=suite, task=task, args=given)
    try:
        had, has = envs.spec_of(old.env), envs.spec_of(new)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for what, before, now in (
        ("observations", dict(had.obs), dict(has.obs)),
        ("actions", had.action, has.action),
    ):
        if before != now:
            raise ConfigError(
                f"{suite}/{task} has other {what} than {run.name} has learned from: {now}, "
                f"not {before}"
            )
    return new


def refuse_an_end_behind(run: RunDir, config: Config, *, moved: bool) -> None:
    """Refuse to go on with a run that would end at once."""
    from dreamer_async.store.summary import summarize

    now = summarize(run)
    if config.train.updates:
        if now.updates < config.train.updates:
            return
        raise ConfigError(
            f"{run.name} has done {now.updates:,} updates and would end at "
            f"{config.train.updates:,}; give more, such as --updates {2 * now.updates}, or "
            "--online to continue with environments"
        )
    if config.train.steps > now.env_steps or not (moved or now.state == "completed"):
        return
    raise ConfigError(
        f"{run.name} has seen {now.env_steps:,} steps and would end at {config.train.steps:,}; "
        f"give more, such as --steps {2 * max(now.env_steps, config.train.steps)}"
    )
