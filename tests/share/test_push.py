"""Agents on the hub, against a stand-in of what is used of huggingface_hub's interface."""

from __future__ import annotations

import fnmatch
import importlib.util
import inspect
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny_run import make_run

import dreamer_async
from dreamer_async.cli import main
from dreamer_async.run import hub, pipeline
from dreamer_async.share.weights import FILES
from dreamer_async.store.checkpoint import CheckpointError
from dreamer_async.store.run_dir import RunDir


def signatures() -> dict[str, inspect.Signature]:
    """What the real library takes, where it is installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return {}
    real: Any = importlib.import_module("huggingface_hub")
    api = real.HfApi()
    functions = (api.create_repo, api.upload_folder, real.snapshot_download)
    return {function.__name__: inspect.signature(function) for function in functions}


SIGNATURES = signatures()


def check_call(name: str, kwargs: dict[str, Any]) -> None:
    """The real library must take the same arguments."""
    if name in SIGNATURES:
        SIGNATURES[name].bind(**kwargs)


class StandIn(ModuleType):
    """A hub in a folder."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root = root
        self.private: dict[str, bool] = {}
        hub = self

        class HfApi:
            def create_repo(self, **kwargs: Any) -> None:
                check_call("create_repo", kwargs)
                if kwargs["repo_id"].startswith("stranger/"):
                    raise PermissionError("403 Forbidden: not yours\n\nRequest ID: 1")
                hub.private[kwargs["repo_id"]] = kwargs["private"]
                (hub.root / kwargs["repo_id"]).mkdir(parents=True, exist_ok=kwargs["exist_ok"])

            def upload_folder(self, **kwargs: Any) -> None:
                check_call("upload_folder", kwargs)
                for file in Path(kwargs["folder_path"]).iterdir():
                    if file.name in kwargs["allow_patterns"]:
                        shutil.copy(file, hub.root / kwargs["repo_id"] / file.name)

        self.HfApi = HfApi

    def snapshot_download(self, **kwargs: Any) -> str:
        check_call("snapshot_download", kwargs)
        source, target = self.root / kwargs["repo_id"], Path(kwargs["local_dir"])
        if not source.is_dir():
            raise FileNotFoundError("404 Client Error: repository not found")
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in kwargs["allow_patterns"]):
                shutil.copy(file, target)
        return str(target)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in place of the library and of its cache."""
    stand_in = StandIn(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    monkeypatch.setattr("dreamer_async.cli.sharing.need_extra", lambda extra, what: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return stand_in


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A toy run that was trained for a moment."""
    run = make_run(tmp_path_factory.mktemp("runs"), "train.steps=60")
    assert pipeline.main(run, plain=False, resume=False) == 0
    return run


def test_what_is_pushed_can_be_loaded(run: RunDir, there: StandIn, tmp_path: Path) -> None:
    words = ["push", str(run.path), "hf://me/catch", "-n", "2", "--private"]
    assert main(words) == 0
    assert there.private == {"me/catch": True}
    assert {path.name for path in (there.root / "me/catch").iterdir()} == set(FILES)
    card = (there.root / "me/catch/README.md").read_text()
    assert 'load("hf://me/catch")' in card
    (there.root / "me/catch/evil.py").write_text("raise SystemExit")
    (there.root / "me/catch/evil.pkl").touch()
    here, far = (dreamer_async.load(p, "cpu", seed=2) for p in (run.path, "hf://me/catch"))
    fetched = {path.name for path in far.path.iterdir()}
    assert fetched == {"manifest.json", "state.safetensors"}, "and nothing else"
    obs = {key: np.ones((4, *s.shape), s.dtype) for key, s in here.spec.obs.items()}
    np.testing.assert_array_equal(here.act(obs, [False] * 4), far.act(obs, [False] * 4))


def test_tampered_weights_are_refused(run: RunDir, there: StandIn) -> None:
    assert main(["push", str(run.path), "hf://me/catch", "-n", "0"]) == 0
    state = there.root / "me/catch/state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="does not match its hash"):
        dreamer_async.load("hf://me/catch")


def test_what_the_hub_says_is_one_line(
    run: RunDir, there: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run.path), "hf://stranger/catch", "-n", "0"]) == 73
    error = capsys.readouterr().err
    assert "403 Forbidden: not yours" in error and error.count("\n") == 1
    with pytest.raises(CheckpointError, match="hf://me/nothing: 404"):
        dreamer_async.load("hf://me/nothing")
    (there.root / "me/other").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        dreamer_async.load("hf://me/other")


@pytest.mark.parametrize(
    "name", ["hf://me", "hf://me/..", "hf://../x", "hf://a/b/c", "me/catch", "hf://"]
)
def test_names_that_are_none_are_refused(
    name: str, run: RunDir, there: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run.path), name]) == 2
    error = capsys.readouterr().err
    assert "write hf://user/name" in error and error.count("\n") == 1


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'dreamer-async\[hub\]'"):
        hub.local("hf://me/catch")
