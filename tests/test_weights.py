"""Weights on disk: what we save comes back, what others saved is taken, and what is unsafe is refused."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import pickle
import runpy
import shutil
import subprocess
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from compress.data.dataset.cases import Normalization
from compress.errors import WeightsError
from compress.networks.foreign.adapter import LogitsAdapter
from compress.networks.foreign.head import Head
from compress.networks.foreign.notes import notes_of
from compress.networks.foreign.probe import reading_of
from compress.networks.unet import UNet
from compress.storage.description import Description, build_net, read_description
from compress.storage.weights import load_net, load_weights, save_net

OPTIONS: dict[str, Any] = {"classes": 2, "in_channels": 1, "width": 4, "depth": 1}


def fresh(seed: int = 0, **options: object) -> nn.Module:
    """A tiny network whose batch norms have seen something."""
    torch.manual_seed(seed)
    net = UNet(**{**OPTIONS, **options})()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    return net.eval()


def saved(path: Path, net: nn.Module, *, half: bool = False, **more: Any) -> Path:
    save_net(net, Description(network={"unet": OPTIONS}, **more), path, half=half)
    return path


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(*pair) for pair in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def refused(path: Path, words: str) -> None:
    with pytest.raises(WeightsError, match=words) as told:
        load_weights(fresh(), path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_saved_network_comes_back_to_the_bit(tmp_path: Path) -> None:
    net = fresh()
    back = load_net(saved(tmp_path / "net.safetensors", net))
    assert same(net, back)
    assert not back.training
    assert back.description == {"unet": OPTIONS}


def test_in_16_bits_it_is_half_as_large_and_nearly_the_same(tmp_path: Path) -> None:
    net = fresh(width=16)
    options = {**OPTIONS, "width": 16}
    paths = []
    for half in (False, True):
        paths.append(tmp_path / f"{half}.safetensors")
        save_net(net, Description(network={"unet": options}), paths[-1], half=half)
    assert paths[1].stat().st_size < 0.7 * paths[0].stat().st_size
    image = torch.randn(1, 1, 16, 16)
    back = load_net(paths[1])
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in back.state_dict().values())
    torch.testing.assert_close(back(image), net(image), rtol=0, atol=2e-2)


def test_a_variance_too_large_for_16_bits_stays_in_32(tmp_path: Path) -> None:
    net = fresh()
    net.encoder[0][1].running_var.fill_(1e6)  # type: ignore[index,union-attr,operator]
    back = load_net(saved(tmp_path / "net.safetensors", net, half=True))
    assert (back.encoder[0][1].running_var == 1e6).all()  # type: ignore[index,union-attr]


def test_the_description_comes_back_whole(tmp_path: Path) -> None:
    normalization = Normalization(mean=(0.2,), std=(0.3,))
    more = {"classes": ("background", "nerve"), "normalization": normalization, "size": (32, 48), "made": {"epochs": 3}}
    path = saved(tmp_path / "net.safetensors", fresh(), **more)
    assert read_description(path) == Description(network={"unet": OPTIONS}, **more)  # type: ignore[arg-type]


def test_a_checkpoint_from_elsewhere_has_no_description(tmp_path: Path) -> None:
    torch.save(fresh().state_dict(), tmp_path / "net.pt")
    assert read_description(tmp_path / "net.pt") is None
    with pytest.raises(WeightsError, match=r"has no net\.json beside it to say which network it is"):
        load_net(tmp_path / "net.pt")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"network": {}}',
        '{"network": "unet"}',
        '{"network": {"unet": 5}}',
        '{"network": {"unet": {"classes": 2, "colour": 1}}}',
        '{"network": {"unet": {"classes": 0}}}',
        '{"network": {"unet": {"classes": 2}}, "normalization": {"mean": [0], "std": [0]}}',
        '{"network": {"unet": {"classes": 2}}, "size": 5}',
    ],
)
def test_a_description_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(WeightsError, match=r"net\.json: not a description of a network"):
        read_description(tmp_path / "net.safetensors")


def test_an_unknown_network_is_told_with_what_may_have_happened() -> None:
    with pytest.raises(WeightsError, match="'warpnet' is no network known here; was it made by a newer segpress"):
        build_net({"warpnet": {}})
    with pytest.raises(WeightsError, match=r"unet: colour: .*was it made by a newer segpress"):
        build_net({"unet": {"classes": 2, "colour": 1}})


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state},
    "twice": lambda state: {"model": {"state_dict": state}},
    "module.": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "module.model.": lambda state: {"state_dict": {f"module.model.{name}": each for name, each in state.items()}},
    "_orig_mod.": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "no counters": lambda state: {name: each for name, each in state.items() if "num_batches" not in name},
    "any key": lambda state: {"best": {"of_all": state}, "args": argparse.Namespace(lr=0.1)},
    "numbers of numpy": lambda state: {"model": state, "dice": np.float64(0.9), "epoch": np.int64(3)},
    "Lightning": lambda state: {
        "state_dict": {**{f"net.{name}": each for name, each in state.items()}, "loss.weight": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    },
    "a wrapped part": lambda state: {name.replace("encoder.", "encoder.module."): each for name, each in state.items()},
    "a part with a prefix": lambda state: {
        f"model.{name}" if name.startswith("encoder") else name: each for name, each in state.items()
    },
    "an average of weights": lambda state: {
        "n_averaged": torch.tensor(5),
        **{f"module.{name}": each for name, each in state.items()},
    },
    "counted by a profiler": lambda state: {
        **state,
        "total_ops": torch.zeros(1),
        "encoder.0.0.total_params": torch.ones(1),
    },
    "half": lambda state: {name: each.half() if each.is_floating_point() else each for name, each in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_from_elsewhere_is_taken_however_it_is_wrapped(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], legacy: bool
) -> None:
    theirs, ours = fresh(1), fresh(2)
    torch.save(wrap(dict(theirs.state_dict())), tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    load_weights(ours, tmp_path / "x.pth")
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_safetensors_with_prefixes_are_taken_too(tmp_path: Path) -> None:
    theirs, ours = fresh(1), fresh(2)
    safetensors.torch.save_file(
        {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}, tmp_path / "x.safetensors"
    )
    load_weights(ours, tmp_path / "x.safetensors")
    assert same(ours, theirs)


def test_of_two_sets_of_weights_the_trained_ones_are_taken_and_the_other_is_told(tmp_path: Path) -> None:
    theirs, average, ours = fresh(1), fresh(2), fresh(3)
    for file in (
        {"model_ema": {"module": average.state_dict()}, "model": theirs.state_dict(), "optimizer": theirs.state_dict()},
        {
            f"{part}.{name}": each
            for part, net in (("teacher", average), ("student", theirs))
            for name, each in net.state_dict().items()
        },
    ):
        torch.save(file, tmp_path / "x.pt")
        load_weights(ours, tmp_path / "x.pt")
        assert same(ours, theirs)
    assert notes_of(ours)[0].startswith(
        "the weights are those under 'model'; the file also has such tensors under 'model_ema"
    )
    assert notes_of(ours)[1].startswith("the weights are those under 'student'; ")


def test_what_is_left_out_of_a_file_is_told(tmp_path: Path) -> None:
    ours = fresh()
    state = {**{f"net.{name}": each for name, each in fresh(1).state_dict().items()}, "loss.weight": torch.ones(3)}
    torch.save(state, tmp_path / "x.ckpt")
    load_weights(ours, tmp_path / "x.ckpt")
    assert notes_of(ours) == (
        "1 tensors (loss.weight) in the weights file are no part of the network and are left out",
    )


def test_a_wrapped_network_takes_the_names_of_the_one_in_it(tmp_path: Path) -> None:
    theirs = fresh(1)
    torch.save(theirs.state_dict(), tmp_path / "x.pt")
    reading = reading_of(Stub())
    ours = LogitsAdapter(fresh(2), reading)
    load_weights(ours, tmp_path / "x.pt")
    assert same(ours.net, theirs)
    torch.save(ours.state_dict(), tmp_path / "y.pt")
    again = LogitsAdapter(fresh(3), reading)
    load_weights(again, tmp_path / "y.pt")
    assert same(again, ours)


class Stub:
    """A door to a network of ours."""

    classes, in_channels, dims, input, head = 2, 1, 2, None, Head()

    def unwrapped(self) -> nn.Module:
        return fresh()


def test_programs_are_refused_with_how_their_tensors_are_saved(tmp_path: Path) -> None:
    net, image = fresh(), torch.zeros(1, 1, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, image).save(tmp_path / "script.pt")  # type: ignore[no-untyped-call]
    refused(
        tmp_path / "script.pt",
        r"a TorchScript archive, which is a program; save its tensors alone: net = torch\.jit\.load\('script\.pt'\); "
        r"torch\.save\(net\.state_dict\(\), 'script_state\.pt'\)",
    )
    torch.export.save(torch.export.export(net, (image,), strict=False), tmp_path / "net.pt2")
    refused(
        tmp_path / "net.pt2", r"an exported program, which is a graph; save its tensors alone: program = torch\.export"
    )
    for name in ("net.onnx", "net.h5", "net.engine"):
        (tmp_path / name).write_bytes(b"anything")
        refused(tmp_path / name, "an ONNX file|a Keras or HDF5 file|an engine, which holds no state dict")


def test_what_the_refusals_advise_is_taken(tmp_path: Path) -> None:
    net, image, ours = fresh(1), torch.zeros(1, 1, 16, 16), fresh(2)
    program = torch.export.export(net, (image,), strict=False)
    torch.save(dict(program.state_dict), tmp_path / "net_state.pt")
    load_weights(ours, tmp_path / "net_state.pt")
    assert same(ours, net)


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (
            {"classes": 5},
            r"weights of another number of classes: head\.bias is 5 in the file and 2 in .*; set classes: 5",
        ),
        (
            {"in_channels": 3},
            r"another number of input channels: encoder\.0\.0\.weight is 4x3x3x3 .*; set in_channels: 3",
        ),
        ({"norm": "none"}, r"the recipe's has batch norms and the other has none: correct the recipe's norm"),
        ({"up": "nearest"}, r"\d+ missing .*, \d+ unexpected .*; correct the recipe's network or its options"),
    ],
)
def test_the_likely_cause_of_a_mismatch_is_told(tmp_path: Path, theirs: dict[str, Any], told: str) -> None:
    torch.save(fresh(**theirs).state_dict(), tmp_path / "x.pt")
    refused(tmp_path / "x.pt", told)


def test_batch_norms_an_auxiliary_head_and_another_encoder_are_told(tmp_path: Path) -> None:
    plain = fresh(norm="none")
    torch.save(fresh().state_dict(), tmp_path / "norm.pt")
    with pytest.raises(WeightsError, match="the file's has batch norms and the other has none"):
        load_weights(plain, tmp_path / "norm.pt")
    state = fresh().state_dict()
    torch.save({**state, "aux_classifier.0.weight": torch.zeros(3)}, tmp_path / "aux.pt")
    refused(tmp_path / "aux.pt", "the file's has an auxiliary head: set aux: true")
    renamed = {name.replace("encoder.0.0", "encoder.layer1"): each for name, each in state.items()}
    torch.save(renamed, tmp_path / "encoder.pt")
    refused(tmp_path / "encoder.pt", "only the encoder differs: correct the recipe's encoder")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such weights file")
    refused(tmp_path / "none.pt", "no such weights file")


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("open('trapped', 'w')",)


def test_a_pickle_of_more_than_tensors_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (fresh(), {"state_dict": {}, "trap": Trap()}):
        torch.save(content, tmp_path / "x.pt")
        refused(
            tmp_path / "x.pt", r"refused, because it is a pickle of more than tensors \(.*\) .*: save it again with"
        )
    assert not (tmp_path / "trapped").exists()


class Mode(Enum):
    """Of a training program."""

    BEST = 1


class Config(dict):  # type: ignore[type-arg]
    """A mapping with attributes, as yacs and others have."""

    __getattr__ = dict.__getitem__


@dataclass
class Settings:
    """Of a training program."""

    rate: float
    where: Path


class ByGetattr:
    """As Python up to 3.11.3 pickles a member of an enumeration."""

    def __reduce__(self) -> Any:
        return getattr, (Mode, "BEST")


BESIDE: dict[str, Any] = {
    "a path": Path("runs/best"),
    "an array": np.arange(3.0),
    "a scalar": np.float32(0.5),
    "an integer": np.int64(3),
    "a namespace": argparse.Namespace(rate=0.1, where=Path("x")),
    "simple": SimpleNamespace(rate=0.1),
    "ordered": OrderedDict(a=Path("x")),
    "default": defaultdict(list, a=[1]),
    "a counter": Counter("abc"),
    "a date": datetime(2026, 11, 29, tzinfo=UTC),
    "a dtype": torch.float16,
    "a device": torch.device("cpu"),
    "a size": torch.Size((1, 2)),
    "an enum": Mode.BEST,
    "an enum of Python 3.11.2": ByGetattr(),
    "partial": partial(Settings, rate=1.0),
    "a config": Config(rate=0.1, inner=Config(where=Path("x"))),
    "settings": Settings(0.1, Path("x")),
    "a set": {1, 2},
    "a slice": slice(1, 2),
    "a fraction": Fraction(1, 3),
    "a generator's state": np.random.RandomState(0).get_state(),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_tensors_are_read_beside_whatever_a_training_program_keeps(tmp_path: Path, old: bool) -> None:
    net, other = fresh(), fresh(seed=1)
    content = {"state_dict": net.state_dict(), "hyper_parameters": BESIDE}
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not old)
    load_weights(other, tmp_path / "x.ckpt")
    assert same(net, other)
    (note,) = notes_of(other)
    assert note.startswith("of the weights file only the tensors are read, and not ")


@pytest.mark.parametrize("name", BESIDE)
def test_each_of_them_alone_is_no_obstacle(name: str, tmp_path: Path) -> None:
    net = nn.Conv2d(1, 1, 1)
    torch.save({"model": Config(net.state_dict()), "beside": BESIDE[name]}, tmp_path / "x.pt")
    other = nn.Conv2d(1, 1, 1)
    load_weights(other, tmp_path / "x.pt")
    assert same(net, other)


class Calls:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.made = function, args

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize(
    "trap",
    [
        Calls(os.system, "touch trapped"),
        Calls(eval, "open('trapped', 'w')"),
        Calls(exec, "open('trapped', 'w')"),
        Calls(open, "trapped", "w"),
        Calls(__import__, "os"),
        Calls(getattr, "a", "upper"),
        Calls(subprocess.run, ["touch", "trapped"]),
        Calls(shutil.copy, "x.pt", "trapped"),
        Calls(importlib.import_module, "os"),
        Calls(runpy.run_path, "x.py"),
        Calls(partial(os.system), "touch trapped"),
        partial(os.system, "touch trapped"),
    ],
    ids=(
        "system",
        "eval",
        "exec",
        "open",
        "import",
        "getattr",
        "run",
        "copy",
        "import_module",
        "run_path",
        "of",
        "partial",
    ),
)
def test_what_would_run_something_is_refused_and_not_run(
    trap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": fresh().state_dict(), "beside": [Path("x"), trap]}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "refused, because it is a pickle of more than tensors")
    assert not (tmp_path / "trapped").exists()


def test_what_stands_for_a_function_of_the_users_is_never_that_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": fresh().state_dict(), "beside": Calls(touches)}, tmp_path / "x.pt")
    load_weights(fresh(), tmp_path / "x.pt")
    assert not (tmp_path / "trapped").exists()


def touches() -> None:
    """A function of somebody's own."""
    Path("trapped").touch()


def test_the_refusal_never_advises_to_load_it_unsafely(tmp_path: Path) -> None:
    torch.save(fresh(), tmp_path / "x.pt")
    with pytest.raises(WeightsError) as told:
        load_weights(fresh(), tmp_path / "x.pt")
    assert "UNetModule" in str(told.value)
    for advice in ("weights_only", "add_safe_globals", "trust"):
        assert advice not in str(told.value)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("array", {"a": np.zeros(3)}), ("trap", Trap())):
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        refused(path, "refused, because|damaged or not a torch checkpoint")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00", b"hello, world" * 20], ids=["empty", "byte", "text"])
def test_what_is_no_checkpoint_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "damaged or (not a torch checkpoint|truncated safetensors file)")


@pytest.mark.parametrize("kind", ["x.safetensors", "zip.pt", "legacy.pt"])
def test_a_damaged_file_never_ends_in_a_traceback(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    state = fresh().state_dict()
    if kind == "x.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip.pt")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        spoilt = bytearray(whole[: rng.integers(len(whole))])
        for place in rng.integers(0, min(len(spoilt), 2000), 3) if spoilt else ():
            spoilt[place] = rng.integers(256)
        path.write_bytes(bytes(spoilt))
        with pytest.raises(WeightsError):
            load_weights(fresh(), path)


def test_a_truncated_safetensors_file_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.safetensors", fresh())
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "damaged or truncated safetensors file")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], {"state_dict": {"name": "unet"}}])
def test_a_checkpoint_without_tensors_is_told_with_what_it_has(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"no state dict of tensors in it \(found (nothing|epoch|list|name)\); looked under")


def test_weights_of_another_width_are_told_with_both_shapes(tmp_path: Path) -> None:
    torch.save(fresh(width=8).state_dict(), tmp_path / "x.pt")
    refused(
        tmp_path / "x.pt",
        r"weights of another width: encoder\.0\.0\.weight is 8x1x3x3 in the file and 4x1x3x3 in the recipe's network",
    )


def test_weights_of_another_network_are_told_with_what_is_missing(tmp_path: Path) -> None:
    torch.save(fresh(depth=2).state_dict(), tmp_path / "deep.pt")
    refused(
        tmp_path / "deep.pt",
        r"another network: \d+ unexpected \(encoder\.2\.0\.weight, encoder\.2\.0\.bias, encoder\.2\.1\.weight, \.{3}\)",
    )
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    refused(
        tmp_path / "other.pt",
        r"weights of another network: \d+ missing .*, 1 unexpected \(fc\.weight\); no name is the same",
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    state = fresh().state_dict()
    state["head.bias"][1] = value
    path = tmp_path / name
    if name == "x.pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    refused(path, r"head\.bias holds values that are not finite")


def test_a_description_is_plain_json(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors", fresh(), classes=("background", "n\u00e9rv"))
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["network"] == {"unet": OPTIONS}
    assert record["classes"] == ["background", "n\u00e9rv"]


def test_sparse_tensors_are_read_and_numpys_arrays_are_told(tmp_path: Path) -> None:
    net = fresh()
    state = net.state_dict()
    torch.save({name: one.to_sparse() if one.dim() > 1 else one for name, one in state.items()}, tmp_path / "sparse.pt")
    read = fresh()
    load_weights(read, tmp_path / "sparse.pt")
    assert all(torch.equal(one, state[name]) for name, one in read.state_dict().items())
    torch.save({"model": {name: one.numpy() for name, one in state.items()}}, tmp_path / "numpy.pt")
    with pytest.raises(WeightsError, match=r"its arrays are numpy's.*torch\.from_numpy"):
        load_weights(fresh(), tmp_path / "numpy.pt")


def test_a_refusal_names_what_would_run_and_not_what_stands_beside_it(tmp_path: Path) -> None:
    torch.save({"at": Path("x"), "run": Calls(print, "x")}, tmp_path / "x.pt")
    with pytest.raises(WeightsError) as told:
        load_weights(fresh(), tmp_path / "x.pt")
    assert "print" in str(told.value) and "pathlib" not in str(told.value)
