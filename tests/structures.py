"""Small networks for the structural passes, each with one way in which channels depend on each other.

`made(name)` builds one, the same each time; `example(name)` is an input of it. Every network takes a BC..
image and gives two logits a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.networks.unet import UNet

SIDE = 32
C = 16


def example(name: str, seed: int | None = None) -> Tensor:
    """An input of the network of this name: zeros, or random under a seed."""
    channels = 1 if name.startswith(("unet", "v_net")) else 3
    shape = (1, channels, 16, 16, 16) if name in ("volume", "v_net") else (1, channels, SIDE, SIDE)
    return torch.zeros(shape) if seed is None else torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(name: str) -> nn.Module:
    """The network of this name, the same each time, with norms that have seen data; in evaluation mode."""
    torch.manual_seed(0)
    net = STRUCTURES[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        if (
            isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
            and module.weight is not None
        ):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net


def conv(before: int, after: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2 * options.get("dilation", 1), **options)


def body(*middle: nn.Module, after: int = C) -> nn.Sequential:
    """The middle between a stem and a head."""
    return nn.Sequential(conv(3, C), nn.BatchNorm2d(C), nn.ReLU(), *middle, conv(after, 2, 1))


class Residual(nn.Module):
    """Two blocks with additive skips, the second with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (self.branch(C, C), self.branch(C, 2 * C))
        self.skip = nn.Sequential(conv(C, 2 * C, 1, bias=False), nn.BatchNorm2d(2 * C))

    @staticmethod
    def branch(before: int, after: int) -> nn.Sequential:
        first = (conv(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
        return nn.Sequential(*first, conv(after, after, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x + self.a(x))
        return F.relu(self.b(x) + self.skip(x))


class Dense(nn.Module):
    """Each layer reads all before it, norm first (DenseNet, Tiramisu)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(C + 12 * i), nn.ReLU(), conv(C + 12 * i, 12)) for i in range(3)
        )
        self.transition = conv(C + 36, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.transition(x)


class AttentionGate(nn.Module):
    """A skip times a map of one channel, then joined with the gating signal (Attention U-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = conv(C, 2 * C, stride=2)
        self.skip, self.gate = conv(C, C, 1), conv(2 * C, C, 1)
        self.psi = nn.Sequential(conv(C, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.up = nn.ConvTranspose2d(2 * C, C, 2, stride=2)
        self.join = conv(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        deep = F.relu(self.deep(x))
        gate = F.interpolate(self.gate(deep), scale_factor=2.0, mode="bilinear")
        return self.join(torch.cat([x * self.psi(F.relu(self.skip(x) + gate)), self.up(deep)], 1))


class ExpandedGate(nn.Module):
    """A map of one channel, written out for all (MONAI's and others' attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.psi, self.conv = conv(C, 1, 1), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x * torch.sigmoid(self.psi(x)).expand_as(x))


class SqueezeExcite(nn.Module):
    """A weight for each channel from its mean, and a map from all channels (scSE)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.next, self.space = conv(C, C), conv(C, C), conv(C, 1, 1)
        self.squeeze, self.excite = nn.Linear(C, C // 2), nn.Linear(C // 2, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.next(x * weight[:, :, None, None] + x * torch.sigmoid(self.space(x)))


class Cbam(nn.Module):
    """A map from the mean and the largest of all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.space, self.next = conv(C, C), conv(2, 1, 7), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.next(x * torch.sigmoid(self.space(both)))


class Mobile(nn.Module):
    """An inverted residual: 1x1, depthwise, 1x1, added."""

    def __init__(self) -> None:
        super().__init__()
        wide = 3 * C
        self.branch = nn.Sequential(
            *(conv(C, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(conv(wide, wide, 5, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(conv(wide, C, 1, bias=False), nn.BatchNorm2d(C)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Grouped(nn.Module):
    """Convolutions in four groups (ResNeXt), one of them transposed; a depthwise one that doubles its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.grouped, self.narrow = conv(C, 32, 1), conv(32, 32, groups=4), conv(32, C, 1)
        self.twice, self.after = conv(C, 2 * C, groups=C), conv(2 * C, 2 * C, 1)
        self.up = nn.ConvTranspose2d(2 * C, C, 2, stride=2, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.narrow(F.relu(self.grouped(F.relu(self.wide(x)))))
        return self.up(F.relu(self.after(F.relu(self.twice(F.avg_pool2d(x, 2))))))


class Shuffle(nn.Module):
    """Half of the channels pass by, the other half is convolved, then the two are shuffled (ShuffleNet v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(C // 2, C // 2, 1), nn.ReLU(), conv(C // 2, C // 2, groups=C // 2))
        self.next = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        x = torch.cat([kept, self.branch(worked)], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.next(x)


class FixedSplit(nn.Module):
    """A split at a fixed place, and a slice of a fixed length: what cannot be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(4, C), conv(12, C), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        small, large = x.split([4, 12], 1)
        return self.c(F.relu(self.a(small) + self.b(large)))


class Moved(nn.Module):
    """Channels picked by number: without some before them it still runs, on other channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.next = conv(C, 40), conv(10, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(x)
        return self.next(x[:, 11:21])


class Plain(nn.Module):
    """Norms without weights (MONAI's default InstanceNorm), PReLU for each channel and for all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(conv(C, 2 * C), nn.InstanceNorm2d(2 * C), nn.PReLU(2 * C)),
            *(conv(2 * C, C), nn.InstanceNorm2d(C, affine=True, track_running_stats=True), nn.PReLU()),
            *(conv(C, C), nn.BatchNorm2d(C, affine=False), nn.LeakyReLU()),
            *(conv(C, C), nn.GroupNorm(4, C, affine=False), nn.LeakyReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Norms(nn.Module):
    """Group norms of 1, of few and of many groups, over a concatenation too."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(conv(C, 32), nn.GroupNorm(1, 32), nn.ReLU())
        self.b = nn.Sequential(conv(32, 32), nn.GroupNorm(2, 32), nn.ReLU())
        self.c = nn.Sequential(conv(32, 32), nn.GroupNorm(16, 32), nn.ReLU())
        self.norm, self.join = nn.GroupNorm(8, 64), conv(64, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        b = self.b(self.a(x))
        return self.join(self.norm(torch.cat([b, self.c(b)], 1)))


class Tied(nn.Module):
    """One convolution used twice, and a transposed convolution with the weight of another."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.first, self.second = conv(C, C), nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.down = nn.Conv2d(C, 2 * C, 2, stride=2)
        self.up = nn.ConvTranspose2d(2 * C, C, 2, stride=2)
        self.up.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(self.step(F.relu(self.first(self.step(x))))))
        return F.relu(self.up(F.relu(self.down(x))))


class Aspp(nn.Module):
    """Several rates side by side with the image's mean (DeepLab)."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.ModuleList(
            nn.Sequential(conv(C, C, dilation=rate, bias=False), nn.BatchNorm2d(C), nn.ReLU()) for rate in (1, 2, 3)
        )
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(C, C, 1), nn.ReLU())
        self.join = conv(4 * C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.interpolate(self.mean(x), size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.join(torch.cat([*(rate(x) for rate in self.rates), mean], 1))


class VNet(nn.Module):
    """The one-channel image, repeated to 16 channels and added (V-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv3d(1, 16, 5, padding=2), nn.BatchNorm3d(16)
        self.down, self.inner = nn.Conv3d(16, 32, 2, stride=2), nn.Conv3d(32, 32, 3, padding=1)
        self.act, self.up = nn.PReLU(32), nn.ConvTranspose3d(32, 16, 2, stride=2)
        self.join, self.head = nn.Conv3d(32, 32, 3, padding=1), nn.Conv3d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.elu(self.norm(self.stem(x)) + x.repeat(1, 16, 1, 1, 1))
        down = F.elu(self.down(first))
        deep = self.act(self.inner(down) + down)
        joined = torch.cat([self.up(deep), first], 1)
        return self.head(F.elu(self.join(joined) + joined))


class Volume(nn.Module):
    """A 3-D U-Net of depth 1 with instance norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = self.block(3, C), self.block(C, 2 * C)
        self.up, self.last = nn.ConvTranspose3d(2 * C, C, 2, stride=2), self.block(2 * C, C)
        self.head = nn.Conv3d(C, 2, 1)

    @staticmethod
    def block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv3d(before, after, 3, padding=1), nn.InstanceNorm3d(after), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return self.head(self.last(torch.cat([first, self.up(self.deep(F.max_pool3d(first, 2)))], 1)))


class Unpool(nn.Module):
    """Max pooling that remembers where, and unpooling (SegNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = conv(C, C), conv(C, C)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = self.pool(x)
        return self.outside(self.unpool(F.relu(self.inside(pooled)), indices))


class Transformer(nn.Module):
    """Patches, positions, attention with heads and an MLP, and back to an image (UNETR, SETR)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.positions = nn.Conv2d(C, 32, 4, stride=4), nn.Parameter(torch.randn(1, 64, 32) / 10)
        self.first, self.second, self.heads = nn.LayerNorm(32), nn.LayerNorm(32), 4
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.up = nn.ConvTranspose2d(32, C, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x)
        tokens = patches.flatten(2).transpose(1, 2) + self.positions
        tokens = tokens + self.attention(self.first(tokens))
        tokens = tokens + self.mlp(self.second(tokens))
        return self.up(tokens.transpose(1, 2).reshape(patches.shape))

    def attention(self, tokens: Tensor) -> Tensor:
        q, k, v = (self._heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class MultiHead(nn.Module):
    """torch's own attention and encoder layer, on an image's pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(C, C, stride=4), nn.ConvTranspose2d(C, C, 4, stride=4)
        self.norm, self.attention = nn.LayerNorm(C), nn.MultiheadAttention(C, 4, batch_first=True)
        self.wide, self.narrow = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.norm(tokens)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.narrow(F.gelu(self.wide(tokens)))
        return self.up(tokens.transpose(1, 2).reshape(x.shape))


class ConvNext(nn.Module):
    """Layer norm over channels last, linear layers for each pixel, a scale for each channel (ConvNeXt)."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = conv(C, C, 7, groups=C), nn.LayerNorm(C)
        self.wide, self.narrow = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.scale = nn.Parameter(torch.full((C,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.narrow(F.gelu(self.wide(y))) * self.scale).permute(0, 3, 1, 2)


class PixelShuffle(nn.Module):
    """Channels into pixels (ESPCN), and pixels into channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.wide, self.next = conv(4 * C, C), conv(C, 4 * C), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.next(F.pixel_shuffle(self.wide(F.relu(self.down(F.pixel_unshuffle(x, 2)))), 2))


class NonLocal(nn.Module):
    """Each pixel from all others, by the likeness of their features (non-local block)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi, self.g, self.out = (conv(C, C, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 4)
        theta, phi, g = (layer(small).flatten(2) for layer in (self.theta, self.phi, self.g))
        seen = g @ torch.softmax(theta.transpose(1, 2) @ phi, -1).transpose(1, 2)
        return x + F.interpolate(self.out(seen.view(seen.shape[0], -1, *small.shape[2:])), scale_factor=4.0)


class WeightNorm(nn.Module):
    """A weight that is computed: what cannot be pruned, beside a layer that can."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(conv(C, C))
        self.after, self.last = conv(C, C), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.after(F.relu(self.normed(x)))))


class Functional(nn.Module):
    """Convolutions as functions of parameters that are not called weight; a fixed filter in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.randn(C, C, 3, 3) / 12), nn.Parameter(torch.randn(C) / 10)
        self.register_buffer("blur", torch.full((C, 1, 3, 3), 1 / 9))
        self.next = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, self.offset, padding=1))
        return self.next(F.conv2d(x, self.blur, padding=1, groups=self.blur.shape[0]))  # type: ignore[arg-type]


class Selective(nn.Module):
    """Branches stacked, added, and weighed against each other for each channel (selective kernels)."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv(C, C, kernel) for kernel in (3, 5))
        self.squeeze, self.weigh = conv(C, C // 2, 1), nn.ModuleList(conv(C // 2, C, 1) for _ in range(2))
        self.next = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([F.relu(branch(x)) for branch in self.branches], 1)
        squeezed = F.relu(self.squeeze(both.sum(1).mean((2, 3), keepdim=True)))
        weights = torch.stack([layer(squeezed) for layer in self.weigh], 1).softmax(1)
        return self.next(F.channel_shuffle((both * weights).sum(1), 4))


class Einsum(nn.Module):
    """Products written as sums over letters, and a plane of the image changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.next = conv(C, C, 1), conv(C, C, 1), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 4)
        query, value = self.query(small).flatten(2), self.value(small).flatten(2)
        seen = torch.einsum("bcn,bcm->bnm", query, query).softmax(-1)
        found = torch.einsum("bnm,bcm->bcn", seen, value).reshape(value.shape[0], -1, *small.shape[2:])
        found[:, :, 0] = 0
        return self.next(F.interpolate(found, scale_factor=4.0))


class DeepSupervision(nn.Module):
    """In training it answers twice, the second time from a layer in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, C), conv(C, C)
        self.head, self.early = conv(C, 2, 1), conv(C, 2, 1)

    def forward(self, x: Tensor) -> Any:
        a = F.relu(self.a(x))
        logits = self.head(F.relu(self.b(a)))
        return [logits, self.early(a)] if self.training else logits


STRUCTURES: dict[str, Callable[[], nn.Module]] = {
    "unet_batch": UNet(classes=2, width=16, depth=2),
    "unet_instance": UNet(classes=2, width=16, depth=2, norm="instance"),
    "unet_group": UNet(classes=2, width=16, depth=2, norm="group"),
    "unet_nearest": UNet(classes=2, width=16, depth=2, up="nearest"),
    "residual": lambda: body(Residual(), after=2 * C),
    "dense": lambda: body(Dense()),
    "attention_gate": lambda: body(AttentionGate()),
    "expanded_gate": lambda: body(ExpandedGate()),
    "squeeze_excite": lambda: body(SqueezeExcite()),
    "cbam": lambda: body(Cbam()),
    "mobile": lambda: body(Mobile()),
    "grouped": lambda: body(Grouped()),
    "shuffle": lambda: body(Shuffle()),
    "fixed_split": lambda: body(FixedSplit()),
    "moved": lambda: body(Moved()),
    "plain": lambda: body(Plain()),
    "norms": lambda: body(Norms()),
    "tied": lambda: body(Tied()),
    "aspp": lambda: body(Aspp()),
    "v_net": VNet,
    "volume": Volume,
    "unpool": lambda: body(Unpool()),
    "transformer": lambda: body(Transformer()),
    "multi_head": lambda: body(MultiHead()),
    "conv_next": lambda: body(ConvNext()),
    "pixel_shuffle": lambda: body(PixelShuffle()),
    "non_local": lambda: body(NonLocal()),
    "weight_norm": lambda: body(WeightNorm()),
    "selective": lambda: body(Selective()),
    "einsum": lambda: body(Einsum()),
    "deep_supervision": DeepSupervision,
    "functional": lambda: body(Functional()),
}
