"""Which suite and task a person means: `atari`, `Atari/pong`, `CartPole-v1`, `my_game:build`."""

from __future__ import annotations

from dreamer_async.config.schema import ConfigError


def find_task(word: str, task: str | None = None) -> tuple[str, str]:
    """Names of suite and task as they are written, if they can run here; ConfigError.

    `word` is a suite, a suite and a task with a slash between, or an id or a factory of the suite
    gym; what is both is the suite. Without a task the suite's default is taken, if it has one.
    """
    from dreamer_async import envs

    try:
        suite, named = _split(word, task)
        if suite == "gym" and envs.is_code(named):
            envs.allow_code(named)  # whoever types it wants it
        name = envs.resolve_task(suite, named)
    except envs.UnknownTask as error:
        raise ConfigError(str(error)) from None
    if lacking := envs.missing(suite):
        raise ConfigError(lacking[0])
    return suite, name


def _split(word: str, task: str | None) -> tuple[str, str]:
    """Suite and task that the words name, whether there is such a task or not."""
    from dreamer_async import envs

    first, slash, rest = word.partition("/")
    try:
        suite = envs.find_suite(first)
    except envs.UnknownTask:
        return "gym", _of_gym(word, task)
    if slash and task is not None:
        raise ConfigError(f"{word} names a task already; --task {task} cannot be another one")
    named = rest if slash else task
    if named is None and not envs.tasks(suite):
        raise ConfigError(
            f"{suite} needs a task: any Gymnasium id or module:factory, "
            f"such as `{suite} --task {envs.default_task(suite)}`"
        )
    return suite, envs.default_task(suite) if named is None else named


def _of_gym(word: str, task: str | None) -> str:
    """The id or the factory that a word is which is no suite."""
    from dreamer_async import envs

    if task is not None:
        known = envs.unknown(word, only_suites=True)
        raise ConfigError(f"{known}; --task {task} needs a suite in front of it")
    if envs.is_code(word):
        return word
    try:
        return envs.resolve_task("gym", word)
    except envs.UnknownTask:
        raise ConfigError(envs.unknown(word)) from None
