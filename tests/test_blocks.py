"""Small blocks for stretches: where they are found, what they are built of, how they are chosen."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from structures import conv, example, made
from swaps import SMALL_SMP, check_it_travels, dice, task_of, told
from torch import Tensor, nn

from compress.cluster import Processes, Workers
from compress.editing.blocks.apart import Order, learned
from compress.editing.blocks.candidates import KINDS, Candidate, Space, candidates, kinds
from compress.editing.blocks.choice import changed
from compress.editing.blocks.fitting import begin, mend
from compress.editing.blocks.learning import Lessons, _Pupil
from compress.editing.blocks.places import in_first, placed
from compress.editing.blocks.prices import Timed
from compress.editing.blocks.program import Replacement, best, most_saved
from compress.editing.blocks.seen import Error, seen_at
from compress.editing.blocks.stretches import Stretch, stretches
from compress.editing.budget import Precision, Runtime
from compress.editing.layer_replacement import SkippedSites, macs, parameters
from compress.editing.timed_form import timed_form
from compress.errors import PassError
from compress.measure.macs import macs_of
from compress.networks.blocks.ends import Ends
from compress.passes.blocks import Blocks
from compress.passes.distill import Distill
from compress.passes.prune import Prune
from compress.storage.description import Description, build_net, described
from compress.storage.weights import load_net, save_net
from compress.task import Task
from compress.train.sending import unpacked
from export.files import write_json
from export.reach import PYTHON
from export.registry import words
from export.to_onnx import to_onnx

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(folder: Path, weights: Path) -> Task:
    return task_of(folder, weights)


def found_in(net: nn.Module, image: Tensor) -> tuple[dict[str, Stretch], dict[str, list[str]]]:
    kept = SkippedSites(word="blocks")
    torch.manual_seed(0)
    found = stretches(net.eval(), torch.randn(image.shape), kept)
    return {each.name: each for each in found}, kept.reasons


def test_a_u_net_has_its_double_convolutions_and_each_convolution_for_stretches(task: Task) -> None:
    found, reasons = found_in(task.net, task.example)
    doubles = [f"encoder.{level}" for level in range(3)] + [f"decoder.{level}" for level in range(2)]
    assert set(doubles) < set(found) and len(found) == 3 * len(doubles)
    first, second = found["encoder.1"], found["encoder.1.3 to encoder.1.5"]
    assert (first.ends.before, first.ends.after, first.ends.keeps_size) == (8, 16, True)
    assert second.convs == {"encoder.1.3"} < first.convs
    assert [type(layer).__name__ for layer in first.tail] == ["BatchNorm2d", "ReLU"]
    assert first.macs == macs(task.net.encoder[1], [first.into])  # type: ignore[index]
    assert reasons == {}


NETWORKS: dict[str, tuple[Mapping[str, Any], tuple[int, ...], str]] = {
    "3-D U-Net": ({"unet3d": {"classes": 2, "width": 2, "depth": 1}}, (1, 1, 8, 8, 8), "encoder.1"),
    "smp": (
        SMALL_SMP,
        (1, 1, 32, 32),
        "encoder.layer2.0",
    ),
    "MONAI": (
        {
            "monai": {
                "arch": "UNet",
                "in_channels": 1,
                "classes": 2,
                "options": {"spatial_dims": 2, "channels": [4, 8], "strides": [2], "num_res_units": 2},
            }
        },
        (1, 1, 16, 16),
        "model.0",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_stretches_are_found_in_others_networks(name: str) -> None:
    network, shape, stage = NETWORKS[name]
    found, reasons = found_in(build_net(network), torch.zeros(shape))
    assert found[stage].ends.dims == len(shape) - 2
    assert name == "3-D U-Net" or "it gives the network's answer" in reasons
    if name != "3-D U-Net":
        assert set(found[stage].ends.down) == {2}, "a stage that halves the image"


def test_a_residual_block_is_a_stretch_and_its_inside_ends_before_the_sum() -> None:
    net = nn.Sequential(made("residual"), nn.Conv2d(2, 2, 1))
    found, _ = found_in(net, example("residual"))
    whole = [each for each in found.values() if len(each.convs) > 1]
    assert whole and all(each.ends.norm is not None for each in found.values())


class Tangled(nn.Module):
    """Each way in which a part of a network is no stretch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8), nn.ReLU())
        self.twice = nn.Sequential(conv(8, 8))
        self.read = nn.Sequential(conv(8, 8), nn.ReLU())
        self.two = Two()
        self.place = nn.Sequential(nn.ReLU(inplace=True), conv(8, 8))
        self.cut = nn.Sequential(nn.Conv2d(8, 8, 3))
        self.inner = nn.Sequential(conv(8, 8), nn.BatchNorm2d(8))
        self.head = conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x)))
        x = self.read(x) * self.read[0].weight.mean()  # type: ignore[union-attr,operator]
        y = self.two(x, x)
        x = self.place(y) + y
        middle = self.inner[0](x)
        x = self.cut(self.inner[1](middle) + middle)
        return self.head(x)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x + y) * 2


def test_what_is_no_stretch_is_told_with_its_reason() -> None:
    net = Tangled()
    nn.init.constant_(net.inner[1].running_var, 4)  # type: ignore[arg-type]
    found, reasons = found_in(net, torch.zeros(1, 3, 12, 12))
    said = {name: reason for reason, names in reasons.items() for name in names}
    assert said["twice"] == "it is called 2 times"
    assert said["two"] == "it takes or gives something else than one image"
    assert said["place"] == "it changes what it is given in place"
    assert said["cut"] == "what goes in and comes out (12x12 and 10x10) are no whole multiples of each other"
    assert said["head"] == "it gives the network's answer"
    assert said["read"].startswith("the network does not run with another module in its place")
    assert said["inner.0 to inner.1"] == "what its layers give is used elsewhere, too"
    assert {"stem", "two.conv", "place.1"} <= set(found) and not {"twice.0", "read.0"} & set(found)


def ends(**given: Any) -> Ends:
    plain = {"before": 8, "after": 8, "inner": 16, "down": (1, 1), "up": (1, 1), "kernel": (3, 3)}
    return Ends(**{**plain, "norm": nn.BatchNorm2d(8), "activation": nn.LeakyReLU(0.1), **given})


SHAPES = {
    "the same": {},
    "other channels": {"after": 16},
    "down": {"down": (2, 2), "after": 16},
    "up": {"up": (2, 2)},
    "volume": {"down": (1, 1, 1), "up": (1, 1, 1), "kernel": (3, 3, 3), "norm": nn.InstanceNorm3d(8, affine=True)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_gives_what_the_stretch_gives(shape: str) -> None:
    wanted = ends(**SHAPES[shape])  # type: ignore[arg-type]
    stretch = standing(wanted)
    found = {each.kind: each for each in blocks_for(stretch, None)}
    fitting = set(words(KINDS)) - ({"identity"} if shape != "the same" and shape != "volume" else set())
    fitting -= {"zoomed"} if shape in ("down", "up") else set()
    assert {kind.split()[0] for kind in found} == fitting
    assert all(each.params == parameters(each.block) for each in found.values())
    if shape == "volume":
        assert {layer.kernel_size for layer in convs(found["factorized"])} == {(1, 3, 3), (3, 1, 1)}


def standing(wanted: Ends) -> Stretch:
    """A double convolution with these ends."""
    layers = nn.Sequential(
        *wanted.rise(),
        *wanted.normed(wanted.before, wanted.inner, wanted.kernel, strided=True),
        *wanted.normed(wanted.inner, wanted.after, wanted.kernel),
    ).eval()
    return Stretch(
        places=(("here",),),
        modules=(layers,),
        into=torch.Size((2, wanted.before, *[8] * wanted.dims)),
        ends=wanted,
        convs=frozenset(),
        tail=tuple(layers[-2:]),
        begun=0,
        macs=0,
        params=0,
    )


def blocks_for(stretch: Stretch, space: Space | None) -> list[Candidate]:
    """The blocks of these kinds, begun on noise."""
    draw = torch.Generator().manual_seed(0)
    return candidates(stretch, kinds(space), 0, lambda: [torch.randn(stretch.into, generator=draw)])


def convs(candidate: Candidate) -> list[Any]:
    return [layer for layer in candidate.block.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]


def test_a_kind_that_is_not_there_and_an_option_that_it_has_not_are_told() -> None:
    with pytest.raises(ValueError, match="space: there is no kind 'singel'; there are bottleneck, "):
        Blocks(macs=0.5, space=("singel",))
    with pytest.raises(ValueError, match="space: bottleneck: reduce: Input should be greater than or equal to 2"):
        Blocks(macs=0.5, space=({"bottleneck": {"reduce": 1}},))
    for option in ("space", "where"):
        with pytest.raises(ValueError, match=f"{option}: names nothing; leave it out"):
            Blocks(macs=0.5, **{option: ()})
    with pytest.raises(ValueError, match="macs and params are given; give one of macs, params, latency_ms or latency"):
        Blocks(macs=0.5, params=0.5)
    for given in ({"latency_ms": 1}, {"latency": 0.5}):
        with pytest.raises(ValueError, match="backend 'torch' runs no file of blocks on cpu"):
            Blocks(backend="torch", **given)
    with pytest.raises(ValueError, match=r"front: 4 is no share below 1, as latency, 0\.5, is"):
        Blocks(latency=0.5, front=(0.3, 4))


def every_kind(net: nn.Module, image: Tensor) -> nn.Module:
    """The network with another kind in each of its places, so that all of them are in it."""
    found, _ = found_in(net, image)
    left, chosen, taken = words(KINDS), list[Candidate](), set[str]()
    for stretch in reversed(found.values()):
        if stretch.convs & taken:
            continue
        # To make blocks that are not taken takes longest.
        if fitting := next(filter(None, (blocks_for(stretch, [kind]) for kind in reversed(left))), None):
            chosen.append(fitting[-1])
            taken |= stretch.convs
            left.remove(fitting[-1].kind.split()[0])
    assert len(left) <= 3, left
    return described(changed(net, chosen)[0])


@pytest.fixture(scope="module")
def mixed(task: Task) -> nn.Module:
    return every_kind(task.net, task.example)


@pytest.mark.slow
def test_networks_with_every_kind_are_pruned_saved_loaded_and_exported(
    mixed: nn.Module, task: Task, tmp_path: Path
) -> None:
    smaller = Prune(ratio=0.5, multiple=1)(mixed, task)
    assert parameters(smaller) < 0.7 * parameters(mixed)
    check_it_travels(smaller, task.example, tmp_path)


def test_volumes_with_every_kind_are_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_net({"unet3d": {"classes": 2, "width": 8, "depth": 2, "norm": "instance"}}).eval()
    net, image = every_kind(net, torch.zeros(1, 1, 8, 8, 8)), torch.randn(1, 1, 8, 8, 8)
    save_net(net, Description(network=net.description), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.allclose(load_net(tmp_path / "net.safetensors")(image), net(image), atol=1e-5)


def test_what_is_seen_is_what_the_stretch_does(task: Task) -> None:
    found, _ = found_in(task.net, task.example)
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    for stretch in found.values():
        seen = seen_at(task.net, stretch, image)
        with torch.no_grad():
            out = seen.into
            for module in stretch.modules:
                out = module(out)
            again = seen.wanted
            for layer in stretch.tail:
                again = layer(again)
        assert torch.equal(out, seen.out) and torch.equal(again, seen.out)


def test_blocks_begin_near_what_they_are_to_learn(task: Task, tmp_path: Path) -> None:
    stretch = found_in(task.net, task.example)[0]["encoder.1.3 to encoder.1.5"]
    lessons = Lessons(net=task.net, task=task, steps=1, folder=tmp_path)
    blocks = {each.kind: each for each in blocks_for(stretch, ["single", "inverted_residual", "zoomed"])}
    before, remembered = lessons._errors(list(blocks.values())), lessons._remembered(stretch)
    for each in blocks.values():
        begin(each, remembered)
    after = lessons._errors(list(blocks.values()))
    assert all(after[each] < min(0.8, before[each]) for each in blocks.values()), (before, after)
    # One convolution for one: the same, but for rows that are left out.
    assert after[blocks["single"]] < 0.01
    assert [type(layer).__name__ for layer in blocks["inverted_residual"].block] == ["Sum", "ReLU"], "no norm behind it"


def test_blocks_in_a_row_are_fitted_to_what_those_before_them_give(task: Task) -> None:
    """Blocks that were fitted apart mend each other's errors."""
    found, images = found_in(task.net, task.example)[0], [torch.from_numpy(each) for each in task.probes(most=4)]
    blocks = []
    for name in ("encoder.1", "encoder.2", "decoder.0", "decoder.1"):
        (each,) = blocks_for(found[name], ["pointwise"])
        begin(each, [seen_at(task.net, each.stretch, image) for image in images])
        blocks.append(each)
    net, copies = changed(task.net, blocks)
    apart, together = Error(), Error()
    with torch.no_grad():
        for image in images:
            apart.add(net(image), task.net(image))
        mend(net, copies, task.net, images)
        for image in images:
            together.add(net(image), task.net(image))
    assert together.share() < 0.95 * apart.share(), (together.share(), apart.share())


def test_an_error_of_one_is_that_of_the_mean() -> None:
    wanted, error = torch.randn(2, 3, 5, 5), Error()
    error.add(wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted), wanted)
    assert error.share() == pytest.approx(1)


def test_a_network_is_as_before_when_a_block_was_tried(task: Task) -> None:
    found, _ = found_in(task.net, task.example)
    image, before = torch.randn(1, 1, 32, 32), dict(task.net.named_modules())
    wanted = task.net(image)
    for stretch in found.values():
        with placed(task.net, stretch.places, in_first(nn.Identity(), stretch.places)):
            assert dict(task.net.named_modules()) != before
    assert dict(task.net.named_modules()) == before
    assert torch.equal(task.net(image), wanted)


def test_the_program_finds_what_trying_everything_finds() -> None:
    draw = np.random.default_rng(0)
    layers = ("a", "b", "ab", "c", "abc")
    parts = [
        Replacement(layers=frozenset(layers[place % 5]), loss=float(draw.random()), saved=float(draw.random()))
        for place in range(11)
    ]
    for needed in (0.3, 1.0, 1.6):
        assert best(parts, needed, 3) == by_hand(parts, needed)[:3]
    first, *others = best(parts, 1.0, 3, unlike=0.5)
    assert others and all(len(set(first) & set(each)) <= len(first) / 2 for each in others)
    most = most_saved(parts)
    assert best(parts, most * 1.001, 1) == [] and best(parts, most * 0.999, 1) != []


def by_hand(parts: Sequence[Replacement], needed: float) -> list[tuple[int, ...]]:
    right = []
    for count in range(len(parts) + 1):
        for choice in itertools.combinations(range(len(parts)), count):
            inside = [layer for place in choice for layer in parts[place].layers]
            if len(inside) == len(set(inside)) and sum(parts[place].saved for place in choice) >= needed:
                right.append(choice)
    return sorted(right, key=lambda choice: sum(parts[place].loss for place in choice))


SPACE = ("depthwise_separable", "pointwise")
FEW = {"where": "decoder", "steps": 3}


@pytest.fixture(scope="module")
def replaced(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, list[str], Task]:
    """The small trained U-Net with blocks, what the pass said, and the task with what it kept."""
    heard, notes = told(replace(task, kept=tmp_path_factory.mktemp("kept")))
    return Blocks(macs=0.6, space=SPACE, **FEW)(task.net, heard), notes, heard  # type: ignore[arg-type]


@pytest.fixture
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it was trained before")

    monkeypatch.setattr("compress.editing.blocks.learning.Lessons.learned", refuse)


def test_blocks_end_under_the_budget_with_little_lost(replaced: tuple[nn.Module, list[str], Task], task: Task) -> None:
    net, notes, _ = replaced
    assert macs(net, [task.example.shape]) <= 0.6 * macs(task.net, [task.example.shape])
    assert dice(task, task.net) - dice(task, net) < 0.1
    tried = [
        re.match(r".* of 3: validation Dice (\S+); overlap lost (\S+) as .* (\S+) fitted", line) for line in notes[:3]
    ]
    assert all(each and float(each[1]) > 0.5 and min(float(each[2]), float(each[3])) < 0.2 for each in tried)
    said = re.match(r"blocks: (\d+) stretches replaced, of 6 for which (\d+) blocks were tried: \w+", notes[3])
    assert said and int(said[1]) >= 1 and int(said[2]) > 10
    assert re.match(r"blocks: [\d,]+ multiply-accumulates where [\d,]+ multiply-a.*allowed; .* \(0\.0% off\)", notes[4])
    losses = [float(line.rpartition(" ")[2]) for line in notes[:3]]
    assert losses == sorted(losses), "the best choice by its prediction comes first"


def test_what_was_trained_before_a_run_was_stopped_is_not_trained_again(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, notes = told(replace(task, kept=tmp_path))
    step = Blocks(macs=0.9, space=["pointwise"], where="decoder.1", steps=1, tried=1)  # type: ignore[arg-type]
    monkeypatch.setattr("compress.editing.blocks.search.TOGETHER", 2)
    with monkeypatch.context() as patch:
        patch.setattr("compress.editing.blocks.kept.write_json", stopped_at_the_second())
        with pytest.raises(KeyboardInterrupt):
            step(task.net, heard)
    step(task.net, heard)
    assert notes[0] == "blocks: 1 of 3 blocks were trained before"


@pytest.mark.slow
def test_other_processes_train_the_same_blocks(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here another process is this one, and the first of them dies; tests/test_cluster.py has real ones."""
    orders: list[int] = []

    @contextmanager
    def here(workers: Workers, _: Any) -> Iterator[Processes]:
        def each(work: Any, given: Any) -> Iterator[Any]:
            for number, order in enumerate(given):
                orders.append(len(unpacked(order).blocks))
                yield pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(order))))) if number else None

        yield Processes(count=workers.count, threads=1, each=each)

    monkeypatch.setattr("compress.editing.blocks.apart.opened", here)
    step = Blocks(macs=0.9, space=["pointwise"], where="decoder.1", steps=1, tried=1)  # type: ignore[arg-type]
    for count in (1, 2):
        step(task.net, replace(task, kept=tmp_path / str(count), workers=Workers(count=count)))
    alone, beside = ({path.name: path.read_bytes() for path in (tmp_path / each).rglob("*.*")} for each in "12")
    assert orders == [2, 1] and alone == beside and len(alone) == 6


def test_what_another_process_cannot_make_again_is_refused(task: Task) -> None:
    refused = (
        r"blocks: what is trained cannot be made again in another process \(.*\); leave --workers and --cluster out"
    )
    own = copy.deepcopy(task.net)
    own.register_forward_hook(lambda *_: None)
    with pytest.raises(PassError, match=refused):
        Order(net=own, task=task, steps=1, blocks=[]).packed()
    with pytest.raises(PassError, match=refused):
        learned(pickle.dumps((False, b"cno_such_module\nNet\n.")))


def stopped_at_the_second() -> Any:
    done: list[Path] = []

    def write(path: Path, value: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(path)
        write_json(path, value)

    return write


@pytest.mark.usefixtures("nothing_is_trained")
def test_nothing_is_trained_twice_and_worse_blocks_lose_more(
    replaced: tuple[nn.Module, list[str], Task], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, _, heard = replaced

    def worst(parts: Sequence[Replacement], needed: float, *_: float) -> list[tuple[int, ...]]:
        return best([replace(each, loss=1 - each.loss) for each in parts], needed, 1)

    with monkeypatch.context() as patch:
        patch.setattr("compress.editing.blocks.choice.best", worst)
        worse = Blocks(macs=0.6, space=SPACE, **FEW)(task.net, heard)  # type: ignore[arg-type]
    assert dice(task, worse) < dice(task, net)
    smaller = Blocks(params=0.8, space=("pointwise",), **FEW)(task.net, heard)  # type: ignore[arg-type]
    assert parameters(smaller) <= 0.8 * parameters(task.net)


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_front_tells_what_other_budgets_would_give(
    replaced: tuple[nn.Module, list[str], Task], task: Task, tmp_path: Path
) -> None:
    heard, notes = told(replaced[2])
    Blocks(macs=0.6, space=SPACE, front=(0.7, 0.001, 0.8, 1, 0.7), tried=1, **FEW)(task.net, heard)  # type: ignore[arg-type]
    front = [line.removeprefix("blocks: front: ") for line in notes if line.startswith("blocks: front: ")]
    assert front[0].startswith("macs 1: nothing needs to be replaced")
    assert front[1].startswith(
        "macs 0.001: 6,259 multiply-accumulates cannot be reached: with the smallest blocks every"
    )
    shares = [float(each) for line in front for each in re.findall(r"accumulates \((\S+)%\) and", line)]
    assert len(shares) == 2 and shares[1] <= 70 < shares[0] <= 80
    assert replaced[2].kept is not None
    table = (replaced[2].kept / "blocks" / "front-macs.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["macs", "0.8", "0.7"]
    assert (replaced[2].kept / "blocks" / "front-macs.svg").read_text().rstrip().endswith("</svg>")


def test_a_block_that_training_makes_no_better_is_trained_no_more(task: Task, tmp_path: Path) -> None:
    """One convolution in the place of one is as good as it can be from the beginning; its state is kept."""
    stretch = found_in(task.net, task.example)[0]["encoder.1.3 to encoder.1.5"]
    blocks, steps = blocks_for(stretch, ["single", "inverted_residual"]), list[int]()
    lessons = Lessons(net=task.net, task=task, steps=4, folder=tmp_path)
    learnt: list[str] = []
    real = _Pupil.learn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Pupil, "learn", lambda pupil, seen: (learnt.append(names[pupil.block]), real(pupil, seen)))
        names = {each.block: each.kind for each in blocks}
        errors = lessons.learned(blocks, lambda: steps.append(1))
    assert learnt.count("single") == 2 and len(steps) == (1 + 4) * len(blocks), "a step for what it begins with"
    assert errors[0] < 0.01


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"macs": 0.001, "where": "decoder.1"}, "cannot be reached: with the smallest blocks everywhere there are"),
        ({"macs": 1e9, "where": "decoder.1"}, "nothing needs to be replaced: the network has 6,258,688 multiply-"),
        ({"macs": 0.5, "where": "midle"}, "where 'midle' names no layer of a stretch; there are encoder.0, "),
        (
            {"macs": 0.5, "where": "encoder.1.0", "space": ("identity",)},
            "no block of these kinds fits its channels and",
        ),
        ({"macs": 0.5, "where": "encoder.1.0", "space": ({"narrow": {"share": 0.99}},)}, "no stretch was replaced; "),
    ],
)
def test_what_cannot_be_is_told(
    replaced: tuple[nn.Module, list[str], Task], task: Task, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(PassError, match=said):
        Blocks(**{"space": SPACE, "steps": 3, **given})(task.net, replaced[2])


def test_a_latency_is_met_by_what_whole_networks_take(
    replaced: tuple[nn.Module, list[str], Task], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network on whose runtime two blocks side by side save half of what each saves alone."""

    def took(_: Timed, pieces: Sequence[tuple[nn.Module, torch.Size]]) -> list[float]:
        whole = macs(task.net, [task.example.shape]) / 1e6
        times = [macs_of(piece, torch.zeros(shape)) / 1e6 for piece, shape in pieces]
        networks = [isinstance(piece, type(task.net)) for piece, _ in pieces]
        # Another load each time: what is compared takes turns.
        load = next(loads)
        return [load * ((whole + each) / 2 if net else each) for each, net in zip(times, networks, strict=True)]

    loads = itertools.chain([1], itertools.cycle([3, 1, 2]))
    monkeypatch.setattr(Timed, "_ms", took)
    heard, notes = told(replaced[2])
    Blocks(latency_ms=4.4, threads=1, tried=1, recover=Distill(steps=1, rate=1e-3), space=SPACE, **FEW)(task.net, heard)  # type: ignore[arg-type]
    said = re.search(r"blocks: (\S+) ms on onnxruntime, cpu where 4.40 ms .* added up .* it was (\S+) ms", notes[-1])
    assert said and float(said[2]) < float(said[1]) <= 4.4 * 1.1, notes


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_share_of_the_latency_is_that_of_what_the_network_takes_here(
    replaced: tuple[nn.Module, list[str], Task], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def took(_: Timed, pieces: Sequence[tuple[nn.Module, torch.Size]]) -> list[float]:
        return [macs_of(piece, torch.zeros(shape)) / 1e6 for piece, shape in pieces]

    monkeypatch.setattr(Timed, "_ms", took)
    whole = macs(task.net, [task.example.shape]) / 1e6
    with pytest.raises(PassError, match=f"{whole / 10:.2f} ms on onnxruntime, cpu cannot be reached"):
        Blocks(latency=0.1, threads=1, space=SPACE, steps=3, where="decoder.1")(task.net, replaced[2])


def test_blocks_and_stretches_are_timed_once_as_they_will_run(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretch = found_in(task.net, task.example)[0]["decoder.1.0 to decoder.1.2"]
    (block,) = blocks_for(stretch, ["pointwise"])
    runtime = Runtime(device="cpu", backend="onnxruntime", threads=1, python=PYTHON)
    price = Timed(runtime=runtime, seed=0, folder=tmp_path)
    (saved,) = price.saved([block], stretch.modules[0], torch.zeros(stretch.into), 1.0)
    # Nine times the work: more than what else goes on here.
    assert saved > 0
    monkeypatch.setattr(Timed, "_ms", None)
    assert price.saved([block], stretch.modules[0], torch.zeros(stretch.into), 2.0) == [2 * saved]


@pytest.mark.parametrize(("dims", "precision"), [(2, "float"), (2, "int8"), (3, "int8")])
def test_in_integers_a_block_is_timed_with_a_layer_behind_it_that_reads_integers(
    dims: int, precision: Precision, tmp_path: Path
) -> None:
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    block, into = nn.Sequential(conv(3, 5, 3, padding=1), nn.ReLU()).eval(), torch.Size([1, 3, *[8] * dims])
    runtime = Runtime(device="cpu", backend="onnxruntime", threads=1, python=PYTHON, precision=precision)
    piece = Timed(runtime=runtime, seed=0)._alone(block, into)
    path = to_onnx(timed_form(piece, torch.zeros(into), runtime), torch.zeros(into), tmp_path / "piece.onnx").path
    # Quantized are what goes in and what comes out.
    quantized = [node.op_type for node in onnx.load(path).graph.node].count("QuantizeLinear")
    assert quantized == (0 if precision == "float" else 2)


def test_weights_and_answers_that_are_not_finite_are_told_by_names_of_the_network(task: Task) -> None:
    net = copy.deepcopy(task.net)
    net.encoder[1][3].weight.data[0, 0, 0, 0] = torch.nan  # type: ignore[index,operator,union-attr]
    with pytest.raises(PassError, match=r"blocks: the weights of encoder\.1\.3 are not finite"):
        Blocks(macs=0.5)(net, task)
    stretch = found_in(task.net, task.example)[0]["encoder.1"]
    (block,) = blocks_for(stretch, ["narrow"])[:1]
    seen = seen_at(task.net, stretch, task.example)
    with pytest.raises(PassError, match=r"what encoder\.1 sees or gives is not finite on the train cases"):
        begin(block, [replace(seen, into=seen.into * torch.inf)])


def test_without_validation_cases_nothing_is_chosen(task: Task) -> None:
    none = replace(task, data=replace(task.data, cases={**task.data.cases, "val": []}))
    with pytest.raises(PassError, match="blocks: there are no val cases; give some the split 'val'"):
        Blocks(macs=0.5)(task.net, none)
