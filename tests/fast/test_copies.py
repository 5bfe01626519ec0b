"""An edit of `agent/` that a backend does not follow is told, and one setting computes with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from agent_cases import MIXED, make_batch, make_config, make_spec
from backends import native
from tiny_run import make_run
from torch import Tensor

from dreamer_async.agent import Policy, Trainer
from dreamer_async.agent.backend import PYTORCH, Backend
from dreamer_async.agent.nets import dense_layers
from dreamer_async.agent.rssm import RSSM
from dreamer_async.config import resolve
from dreamer_async.fast import copies
from dreamer_async.fast.choose import NATIVE_BFLOAT16
from dreamer_async.fast.cuda.backend import CUDA, WITHOUT_NATIVE
from dreamer_async.fast.cuda.updates import Updates
from dreamer_async.fast.place import take_place
from dreamer_async.run import pipeline
from dreamer_async.store.events import RunStarted, Warned, read_events
from dreamer_async.store.run_dir import RunDir

OTHERS = pytest.mark.parametrize(
    "chosen", [native, lambda: CUDA, lambda: WITHOUT_NATIVE], ids=["native", "CUDA", "neither"]
)


def test_nothing_in_agent_was_edited_since_the_backends_were_compared() -> None:
    changed = dict(copies.current().items() - copies.recorded().items())
    assert changed == {}, (
        "fast/ has copies of these functions (docs/backends.md, Change the algorithm): mirror the "
        "edit, run `just test tests/fast`, then `python -m dreamer_async.fast.copies`"
    )
    assert copies.recorded().keys() == copies.current().keys()


@OTHERS
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_what_a_backend_does_not_call_is_known_as_copied(
    chosen: Callable[[], Backend], kind: str
) -> None:
    backend = chosen()
    theirs, ours = (called(each, kind) for each in (PYTORCH, backend))
    for plain, other in zip(theirs, ours, strict=True):
        assert plain - other <= copies.COPIES[backend.name]
    assert theirs[0] - ours[0], "control: it does all that PyTorch does"


def called(backend: Backend, kind: str) -> tuple[set[str], set[str]]:
    """Functions of `agent/` that run in one update, and in one acting step."""
    spec, config = make_spec(MIXED, kind), make_config()
    trainer, policy = Trainer(spec, config, backend=backend), Policy(spec, config, backend=backend)
    if backend is CUDA:
        Updates(trainer).interpret()
    batch, generator = make_batch(spec, config), torch.Generator().manual_seed(0)
    obs = {key: value[:, 0] for key, value in batch.obs.items()}
    noise, acting = trainer.draw_noise(generator), policy.draw_noise(3, generator)
    return (
        traced(lambda: trainer.update(batch, noise)),
        traced(lambda: policy.step(obs, batch.is_first[:, 0], policy.initial(3), acting)),
    )


def traced(call: Callable[[], object]) -> set[str]:
    seen: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and "/agent/" in code.co_filename and "<" not in code.co_qualname:
            seen.add(f"{Path(code.co_filename).stem}.{code.co_qualname}")

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


CODE = '@cache\ndef f(x: int) -> str:\n    """Explain."""\n    return f"{x}# not one"\n'


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        (CODE.replace("Explain.", "Explain it\n    better."), True),
        (CODE.replace('"""Explain."""', '"""Explain."""\n\n    # why'), True),
        (CODE.replace("one", "two"), False),
        (CODE.replace("@cache\n", ""), False),
        (CODE.replace("x: int", "x: float"), False),
    ],
)
def test_what_is_explained_otherwise_is_the_same_code(edited: str, same: bool) -> None:
    assert edited != CODE
    assert ([*copies._code(edited)] == [*copies._code(CODE)]) == same


def prior(self: RSSM, deter: Tensor) -> Tensor:
    """An edit of somebody's: a prior that is more certain."""
    x = self.ops.dense(deter, dense_layers(self.prior_stack))
    return 2.0 * self._logits(self.priorlogit(x))


@pytest.fixture
def an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RSSM, "prior", prior)


@pytest.mark.usefixtures("an_edit")
def test_whoever_has_a_copy_tells_of_an_edit() -> None:
    for backend in (native(), NATIVE_BFLOAT16, CUDA):
        said = copies.edited(backend)
        assert said.startswith("rssm.RSSM.prior in agent/ was edited") and backend.name in said
    assert copies.edited(PYTORCH) == copies.edited(WITHOUT_NATIVE) == "", "these call it"


@pytest.mark.usefixtures("an_edit")
@pytest.mark.parametrize("backend", ["auto", "pytorch"])
def test_a_run_tells_or_computes_with_it(tmp_path: Path, backend: str) -> None:
    run = make_run(tmp_path, f"train.backend={backend}", "train.steps=60")
    assert pipeline.main(run, plain=False, resume=False) == 0
    told = [text for text in warnings(run) if "rssm.RSSM.prior in agent/ was edited" in text]
    assert len(told) == (backend == "auto")
    [started] = [event for event in events(run) if isinstance(event, RunStarted)]
    assert bool(started.native) == (backend == "auto")


def events(run: RunDir) -> list[Any]:
    return [record.event for record in read_events(run.events_path)[0]]


def warnings(run: RunDir) -> list[str]:
    return [event.message for event in events(run) if isinstance(event, Warned)]


def test_the_setting_takes_what_agent_says_and_nothing_else() -> None:
    for word, plain in (("auto", False), ("pytorch", True)):
        words = [f"train.backend={word}", "train.device=cpu"]
        place = take_place(resolve("toy", "seek", overrides=words).train)
        assert (place.backend is PYTORCH) == plain
        assert bool(place.library) != plain and place.problem == ""
