"""Networks whose weights are computed before each call go through every pass as plain ones that answer the same."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from compress.networks.foreign import named
from compress.networks.foreign.notes import notes_of
from compress.passes.prune import Prune
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, load_weights, save_net
from export.capture import folded_graph
from export.modules import copy_of

IMAGE = torch.randn(1, 2, 64, 96, generator=torch.Generator().manual_seed(0))
FILE = """
import warnings
from torch import nn
from torch.nn.utils import prune, parametrizations, spectral_norm, weight_norm
warnings.simplefilter("ignore")
HOW = {
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
    "a pruning mask": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    "WeightNorm": parametrizations.weight_norm,
    "SpectralNorm": parametrizations.spectral_norm,
}

class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.mid = HOW[how](nn.Conv2d(8, 8, 3, 1, 1))
        self.up = HOW[how](nn.ConvTranspose2d(8, 8, 3, 1, 1))
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.last(self.up(self.mid(self.first(x))).relu())
"""
HOW = ("weight norm", "spectral norm", "a pruning mask", "WeightNorm", "SpectralNorm")


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the network that somebody trained, its checkpoint, and the same as it comes in here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(named.NAMED, "")
    (tmp_path / "net.py").write_text(FILE)

    def built(how: str) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        space: dict[str, Any] = {"__name__": "theirs"}
        with warnings.catch_warnings():
            exec(FILE, space)
        net = space["Net"](how)
        net.train()(IMAGE)
        torch.save(net.state_dict(), "net.pt")
        options = {"path": "net.py", "build": "Net", "args": {"how": how}, "classes": 2, "in_channels": 2}
        ours = build_net({"python": options})
        load_weights(ours, Path("net.pt"))
        return net.eval(), ours.eval()

    return built


@pytest.mark.parametrize("how", HOW)
def test_they_come_in_folded_and_answer_the_same(how: str, theirs: Any) -> None:
    net, ours = theirs(how)
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGE), net(IMAGE))
    assert any(f"mid.weight ({how}), up.weight ({how})" in note for note in notes_of(ours))
    assert not any("parametrizations" in name or name.endswith(("_orig", "_g", "_v")) for name in ours.state_dict())


@pytest.mark.parametrize("how", ["weight norm", "SpectralNorm"])
def test_they_are_pruned_saved_and_loaded(how: str, theirs: Any) -> None:
    _, ours = theirs(how)
    task: Any = SimpleNamespace(example=IMAGE, note=lambda _: None, seed=0, folder=None, net=ours)
    changed = Prune(ratio=0.5, multiple=1)(ours, task)
    assert changed.mid.out_channels == 4
    save_net(changed, Description(network=changed.description), Path("changed.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(load_net(Path("changed.safetensors"))(IMAGE), changed.eval()(IMAGE))


def test_they_are_drawn_as_a_graph(theirs: Any) -> None:
    _, ours = theirs("weight norm")
    with torch.no_grad():
        torch.testing.assert_close(folded_graph(ours, IMAGE, ())(IMAGE), ours(IMAGE), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_another_network_is_told_in_its_own_names(theirs: Any) -> None:
    _, ours = theirs("weight norm")
    state = torch.load("net.pt", weights_only=True)
    del state["mid.weight_g"]
    torch.save(state, "less.pt")
    with pytest.raises(ValueError, match=r"1 missing \(mid.weight_g\)"):
        load_weights(ours, Path("less.pt"))


def test_what_a_network_keeps_and_python_cannot_copy_is_no_obstacle() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lock, self.seen = nn.Conv2d(2, 2, 1), threading.Lock(), {"last": [torch.zeros(1)]}
            self.layers = [self.conv]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen["last"][0] = self.conv(x)
            return self.seen["last"][0]

    net = nn.Sequential(Keeps())
    net(IMAGE)
    other: Any = copy_of(net)
    assert other[0].lock is net[0].lock and other[0].conv is not net[0].conv
    assert other[0].layers == [other[0].conv] and other[0].seen["last"][0].is_leaf
    assert net[0].seen["last"][0].grad_fn is not None, "the network itself is left as it is"
