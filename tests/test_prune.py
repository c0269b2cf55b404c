"""Pruning: every structure loses channels or says why not, and what is left is the same network, smaller."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pruning import ALL, chain, cut, pruned, size, stand_in, unet, widths
from pydantic import ValidationError
from rows import Row, rows
from shared_fixtures import write_recipe
from structures import STRUCTURES, example, made
from swaps import Describe, describes
from torch import Tensor, nn

from compress.editing.named_layers import tensor_of
from compress.editing.pruning.dependency.graph import traced
from compress.editing.pruning.dependency.groups import removed_flow
from compress.editing.pruning.removal import Cut, positions, without
from compress.editing.pruning.trial import groups, kept, prunable, refusals, trial_of
from compress.errors import PassError
from compress.passes.prune import Prune
from compress.recipe import load
from compress.storage.changed import rebuilt
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, save_net
from export.backends.onnxruntime import OnnxRuntime
from export.to_onnx import to_onnx

# How many times fewer parameters and MACs are left at least when half of the channels go.
FEWER = dict.fromkeys(STRUCTURES, (3.2, 2.5)) | {
    "deep_supervision": (2.9, 2.8),
    "dense": (3.0, 2.4),
    "fixed_split": (1.9, 2.0),
    "functional": (3.0, 2.4),
    "mobile": (2.3, 2.2),
    "moved": (1.8, 1.8),
    "multi_head": (1.7, 1.6),
    "conv_next": (2.7, 2.4),
    "non_local": (2.7, 2.0),
    "v_net": (2.2, 1.8),
    "weight_norm": (1.6, 1.6),
}
# What is kept although it has more than one channel, beside the logits: a word of the reason.
KEPT = {
    "fixed_split": "code counts",
    "moved": "by their number",
    "multi_head": "code counts",
    "v_net": "code counts",
    "weight_norm": "computes its weight",
}
# A norm over channels, or their mean, is another number without some of them.
MIXED = {"norms", "unet_group", "cbam", "transformer", "multi_head", "conv_next", "plain"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of structures.py can be described, and loaded again."""

    def build(network: Mapping[str, Mapping[str, Any]]) -> nn.Module:
        ((word, options),) = network.items()
        if word == "structure":
            return described_structure(options["name"])
        if word == "changed":
            net = rebuilt(options, build)
            net.description = {word: dict(options)}  # type: ignore[assignment]
            return net
        return build_net(network)

    for module in ("description", "weights"):
        monkeypatch.setattr(f"compress.storage.{module}.build_net", build)


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Describe:
    return describes(monkeypatch)


def described_structure(name: str) -> nn.Module:
    net = made(name)
    net.description = {"structure": {"name": name}}  # type: ignore[assignment]
    return net


@pytest.fixture(scope="module")
def half() -> tuple[nn.Module, nn.Module, list[str]]:
    """A network, what is left of it without half of its channels, and what was said."""
    net, notes = unet(), list[str]()
    return net, pruned(net, notes, ratio=0.5), notes


# What goes, goes everywhere it should, and nowhere else.


@pytest.mark.parametrize("name", [p for p in ALL if p.values[0] not in MIXED])
def test_a_pruned_network_answers_as_the_whole_one_with_those_channels_silenced(name: str) -> None:
    net, image = made(name), example(name, 5)
    trial = trial_of(net, example(name))
    bundles, flow = prunable(trial)
    rng = np.random.default_rng(1)
    cuts = [
        Cut(bundle=one, units=tuple(sorted(rng.permutation(len(one.units))[: len(one.units) // 2].tolist())))
        for one in bundles
        if one.group.prunable
    ]
    refused = refusals(trial, flow, cuts)
    cuts = [cut for cut in cuts if cut.bundle.key not in refused]
    silent = copy.deepcopy(net)
    with torch.no_grad():
        for (tensor, axis), indices in positions(cuts).items():
            if not tensor.endswith(("running_mean", "running_var", "blur")):
                tensor_of(silent, tensor).movedim(axis, 0)[sorted(indices)] = 0
        small = without(net, cuts)
        wanted, answer = silent(image), small(image)
    assert answer.shape == wanted.shape
    assert wanted.std() > 1e-4, "an answer that depends on nothing shows nothing"
    torch.testing.assert_close(answer, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("structures")
@pytest.mark.parametrize("name", ALL)
def test_every_structure_shrinks_saves_loads_and_exports(name: str, tmp_path: Path) -> None:
    net, notes, image = described_structure(name), list[str](), example(name, 5)
    small = Prune(ratio=0.5, multiple=1)(net, stand_in(net, example(name), notes))
    check_smaller(net, small, image, FEWER[name])
    check_saved_and_exported(small, image, tmp_path)
    if name in KEPT:
        assert any(KEPT[name] in note for note in notes), notes
    else:
        assert not any("its code" in note or "joined" in note for note in notes), notes
    assert any("parameters" in note and "MACs" in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("row", rows(toy=True))
def test_every_network_shrinks_saves_loads_and_exports(row: Row, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, image = build_net(row.network).eval(), row.example()
    try:
        small = Prune(ratio=0.5, multiple=1)(net, stand_in(net, torch.zeros_like(image)))
    except PassError as error:
        # Refused with the layers that cannot shrink, and why.
        assert ": " in str(error) and len(str(error)) > 40
        return
    check_smaller(net, small, image, (1.05, 1.05))
    check_saved_and_exported(small, image, tmp_path)


def check_smaller(net: nn.Module, small: nn.Module, image: Tensor, fewer: tuple[float, float]) -> None:
    for before, after, factor in zip(size(net, image), size(small, image), fewer, strict=True):
        assert before / after >= factor, (before, after, before / after)
    assert not small.training
    with torch.no_grad():
        assert small(image).shape == net(image).shape


def check_saved_and_exported(net: nn.Module, image: Tensor, folder: Path) -> None:
    save_net(net, Description(network=net.description), folder / "net.safetensors")  # type: ignore[arg-type]
    loaded = load_net(folder / "net.safetensors")
    with torch.no_grad():
        wanted = net(image)
        assert torch.equal(loaded(image), wanted)
    assert size(loaded, image) == size(net, image), "what is shared stays shared"
    onnx = to_onnx(loaded, torch.zeros_like(image), folder / "net.onnx")
    with OnnxRuntime(threads=1).open(onnx) as infer:
        np.testing.assert_allclose(
            infer(image.numpy()), wanted.numpy(), atol=1e-4 * max(1.0, float(wanted.abs().max()))
        )


def test_the_network_given_is_not_changed(half: tuple[nn.Module, nn.Module, list[str]]) -> None:
    net, before = half[0], unet().state_dict()
    assert widths(net)[0] == 16
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_what_only_training_reads_still_fits() -> None:
    net, image = made("deep_supervision"), example("deep_supervision")
    task = stand_in(net, image)
    small = Prune(ratio=0.5).smaller(net, task).train()
    logits, early = small(image)
    assert logits.shape == early.shape == (1, 2, 32, 32)
    assert small.get_submodule("a").out_channels == small.get_submodule("early").in_channels == 8


def test_channels_that_would_be_others_are_found_though_the_network_runs() -> None:
    net, image = made("moved"), example("moved")
    trial = trial_of(net, image)
    bundles, flow = prunable(trial)
    (wide,) = (one for one in bundles if one.group.prunable and one.group.layers == ("3.wide",))
    cut = Cut(bundle=wide, units=(0, 1, 2))
    small = without(net, [cut])
    assert small(image).shape == net(image).shape
    assert traced(small, image)[1] != removed_flow(flow, positions([cut]))
    assert "by their number" in refusals(trial, flow, [cut])[wide.key]
    # Those behind the picked ones are nobody's loss.
    assert refusals(trial, flow, [Cut(bundle=wide, units=(25, 26))]) == {}


@pytest.mark.parametrize("target", [{"macs": 0.6}, {"params": 0.6}, {"latency_ms": 1.0}])
def test_cuts_that_a_network_refuses_are_no_part_of_what_meets_a_target(
    target: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, notes = made("moved"), list[str]()
    whole = sum(parameter.numel() for parameter in net.parameters())

    def as_many(net: nn.Module, *_: object) -> float:
        return 1.6 * sum(parameter.numel() for parameter in net.parameters()) / whole

    monkeypatch.setattr("compress.editing.pruning.target.latency_ms", as_many)
    task = stand_in(net, example("moved"), notes)
    small = Prune(scope="global", by="l1", multiple=1, **target).smaller(net, task)  # type: ignore[arg-type]
    assert small(example("moved")).shape == net(example("moved")).shape
    assert any("its code counts on so many channels (Invalid channel dimensions)" in note for note in notes)


def test_groups_say_which_layers_go_together_and_why_not() -> None:
    found = {group.layers: group for group in groups(made("attention_gate"), example("attention_gate"))}
    assert found["3.gate", "3.skip"].prunable
    assert found["3.gate", "3.skip"].channels == 16
    assert not found["3.psi.0",].prunable
    assert found["3.psi.0",].reason == "it has one channel"
    assert "output" in str(found["4",].reason)


# How much goes, and of what.


def test_local_pruning_takes_the_same_share_from_every_layer(half: tuple[nn.Module, nn.Module, list[str]]) -> None:
    before, after = (widths(net)[:-1] for net in half[:2])
    assert [2 * width for width in after] == before


@pytest.mark.parametrize(("multiple", "first", "deep"), [(None, 8, 16), (1, 11, 22), (3, 12, 21), (16, 16, 16)])
def test_widths_are_rounded_to_the_nearest_that_fits(multiple: int | None, first: int, deep: int) -> None:
    assert widths(cut(chain(), ratio=0.3, multiple=multiple)) == [first, deep, 3]


def test_global_pruning_takes_what_matters_least_and_leaves_every_layer_some() -> None:
    net = unet()
    with torch.no_grad():
        net.get_submodule("encoder.1.0").weight[:30].mul_(1e-3)  # type: ignore[index, union-attr]
        net.get_submodule("encoder.1.3").weight[:, :30].mul_(1e-3)  # type: ignore[index, union-attr]
        net.get_submodule("encoder.1.1").weight[:30].mul_(1e-3)  # type: ignore[index, union-attr]
    small = pruned(net, ratio=0.4, scope="global", multiple=1, by="l1", most=0.75)
    assert small.get_submodule("encoder.1.0").out_channels == 8
    assert min(widths(small)[:-1]) >= 4
    total, left = sum(widths(net)[:-1]), sum(widths(small)[:-1])
    assert left / total == pytest.approx(0.6, abs=0.01)


def test_kept_layers_keep_their_channels() -> None:
    notes: list[str] = []
    small = pruned(unet(), notes, ratio=0.5, keep=("encoder.0", "up.*"))
    assert widths(small) == [16, 16, 16, 16, 16, 8, 8, 3]
    assert small.get_submodule("up.0").out_channels == 16
    assert any("encoder.0.0" in note and "the recipe keeps it" in note for note in notes)


def test_rounds_end_where_one_cut_ends_and_measure_importance_anew(
    half: tuple[nn.Module, nn.Module, list[str]],
) -> None:
    twice = pruned(unet(), ratio=0.5, multiple=1, rounds=2)
    assert widths(half[1]) == widths(twice)
    assert twice.description["changed"]["net"] == unet().description  # type: ignore[index]


@pytest.mark.parametrize(("macs", "reached"), [(0.5, 0.5), (1_500_000.0, None)])
def test_a_target_of_macs_is_met_from_below(macs: float, reached: float | None) -> None:
    image = torch.zeros(1, 1, 32, 32)
    limit = macs if reached is None else reached * size(chain(), image)[1]
    found = size(cut(chain(), macs=macs, multiple=1), image)[1]
    assert 0.7 * limit < found <= limit


def test_a_target_of_parameters_is_met_in_rounds() -> None:
    image = torch.zeros(1, 1, 32, 32)
    limit = 0.3 * size(chain(), image)[0]
    assert 0.7 * limit < size(cut(chain(), params=0.3, multiple=1, rounds=2), image)[0] <= limit


def test_notes_tell_sizes_the_narrowest_layer_and_what_stayed(half: tuple[nn.Module, nn.Module, list[str]]) -> None:
    notes = half[2]
    params = size(unet(), torch.zeros(1, 1, 32, 32))[0]
    assert notes[0].startswith(f"{params:,} -> ")
    assert notes[1] == "narrowest layer: encoder.0.0, 8 of 16 channels"
    assert notes[2] == "kept head: it makes the network's output"


@pytest.mark.slow
def test_rounds_recover_in_between(tmp_path: Path, recipe: dict[str, object]) -> None:
    notes: list[str] = []
    data = dataclasses.replace(load(write_recipe(tmp_path, recipe)).task(), net=unet())
    task = dataclasses.replace(data, folder=tmp_path, note=notes.append)
    how = Prune(ratio=0.5, rounds=2, recover={"epochs": 1, "rate": 1e-3})
    assert how.uses == ("train", "val")
    small = how(data.net, task)
    assert (tmp_path / "round-1").is_dir()
    assert widths(small)[:2] == [8, 8]
    plain = Prune(ratio=0.5, rounds=2)(data.net, task)
    assert not torch.equal(small.get_submodule("head").weight, plain.get_submodule("head").weight)  # type: ignore[arg-type]


# What is refused.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing is given; give one of ratio"),
        ({"ratio": 0.5, "macs": 0.5}, "ratio and macs are given"),
        ({"ratio": 0.95}, "ratio 0.95 is more than most, 0.9"),
        ({"ratio": 0.5, "device": "toaster"}, "there is no device 'toaster'; there are agx_orin, cpu"),
        ({"latency_ms": 5, "device": "cpu@a b"}, "cpu@a b: 'a b' is no host"),
        ({"latency_ms": 5, "backend": "tensorrt"}, "backend 'tensorrt' does not run on cpu"),
        ({"ratio": 0.5, "recover": {"epochs": 1}}, "recover is done between rounds"),
        ({"ratio": 0.5, "rounds": 2, "recover": {"epoch": 1}}, "recover.epoch"),
        ({"ratio": 1.0}, "less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Prune(**options)


def test_a_pattern_that_names_no_layer_is_refused() -> None:
    with pytest.raises(PassError, match=r"keep 'encoder.0.9' names no layer; did you mean 'encoder.0.[03]'"):
        pruned(unet(), ratio=0.5, keep=("encoder.0.9",))


def test_nothing_pruned_is_an_error_that_says_why() -> None:
    with pytest.raises(
        PassError,
        match=r"nothing was removed: kept head: .*; kept encoder.0.0, .* none of the narrower widths",
    ):
        pruned(unet(width=4, depth=1), ratio=0.5)
    with pytest.raises(PassError, match="the recipe keeps it; kept head: it makes the network's output"):
        pruned(unet(), ratio=0.5, keep=("*",))


def test_a_size_that_cannot_be_reached_says_what_can() -> None:
    with pytest.raises(PassError, match=r"100 MACs cannot be reached: .* there are \d"):
        cut(chain(), macs=100)
    with pytest.raises(PassError, match="nothing needs to be removed"):
        cut(chain(), params=10_000_000)


def test_a_bundle_that_is_kept_says_so() -> None:
    (first, *_), _ = prunable(trial_of(unet(), torch.zeros(1, 1, 32, 32)))
    assert kept(first, "why").group.reason == "why"


def test_a_check_that_torch_writes_for_a_cast_stops_nothing() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x).relu().to(torch.float32))

    found = {group.layers: group.prunable for group in groups(Cast().eval(), torch.zeros(1, 1, 16, 16))}
    assert found == {("first",): True, ("head",): False}


class _Products(nn.Module):
    """Einsum and a composite activation, which are followed only in simpler operations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.functional.logsigmoid(self.first(image))
        same = torch.einsum("bchw,bdhw->bcd", x, x).softmax(-1)
        return self.head(torch.einsum("bcd,bdhw->bchw", same, self.second(x)))


def test_composite_operations_are_followed_in_their_parts() -> None:
    torch.manual_seed(0)
    net, image = _Products().eval(), torch.zeros(1, 1, 16, 16)
    with pytest.raises(PassError, match="kept second: its code counts on so many channels"):
        Prune(ratio=0.5, multiple=1).smaller(net, stand_in(net, image))
