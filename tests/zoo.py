"""Small segmentation networks of every kind people bring, each with one habit, and what tests do with them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.editing.calibration import calibrated
from compress.networks.unet import UNet
from export.artifact import Artifact
from export.capture import folded_graph
from export.quantization.assignment import Assignment
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.to_onnx import to_onnx

SIDE = 32
C = 16


def image(seed: int = 0, *shape: int) -> Tensor:
    """A random image BCHW with three channels, unless another shape is given."""
    return torch.randn(shape or (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


def example(name: str, seed: int = 0) -> Tensor:
    """A random input of the network of this name."""
    return image(seed, 1, 3, 8, 16, 16) if name == "volume" else image(seed)


def made(name: str) -> nn.Module:
    """The network of this name, the same each time, with batch norms that have seen data."""
    torch.manual_seed(0)
    net = ZOO[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, -0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
    return net


@cache
def quantized(name: str, keep_float: tuple[str, ...] = ()) -> Quantized:
    """The network of this name in 8-bit integers, calibrated on three random images."""
    graph = folded_graph(made(name), example(name), ())
    ranges = calibrated(graph, (example(name, seed) for seed in (1, 2, 3)), None, 3)
    return Quantized(graph, ranges, Assignment(keep_float=keep_float))


@cache
def _exported(name: str, rules: Rules | None, keep_float: tuple[str, ...]) -> tuple[Artifact, bytes]:
    net = made(name) if rules is None else quantized(name, keep_float).placed(rules)
    with TemporaryDirectory() as folder:
        artifact = to_onnx(net, example(name), Path(folder) / "net.onnx")
        return artifact, artifact.path.read_bytes()


def written(name: str, path: Path, rules: Rules | None = None, keep_float: tuple[str, ...] = ()) -> Artifact:
    """The network of this name as a file, in float or in the integers of a runtime's rules; it is exported once."""
    artifact, data = _exported(name, rules, keep_float)
    path.write_bytes(data)
    return replace(artifact, path=path).sealed()


def conv(before: int, after: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, **options)  # type: ignore[arg-type]


def body(*middle: nn.Module, after: int = C) -> nn.Sequential:
    """The middle between a stem and a head."""
    return nn.Sequential(conv(3, C), nn.ReLU(), *middle, conv(after, 2, 1))


class Residual(nn.Module):
    """conv-bn-relu-conv-bn, plus the input, relu."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(C, C, bias=False), nn.BatchNorm2d(C), nn.ReLU())
        self.second = nn.Sequential(conv(C, C, bias=False), nn.BatchNorm2d(C))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + x)


class Projection(nn.Module):
    """A bottleneck whose skip is a 1x1 convolution with stride."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for (before, after), kernel in zip(pairwise((C, C, C, 2 * C)), (1, 3, 1), strict=True):
            stride = 2 if kernel == 3 else 1
            layers += [conv(before, after, kernel, stride=stride, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.branch = nn.Sequential(*layers[:-1])
        self.skip = nn.Sequential(conv(C, 2 * C, 1, stride=2, bias=False), nn.BatchNorm2d(2 * C))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.skip(x))


class SqueezeExcite(nn.Module):
    """A weight for each channel, from its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(C, C)
        self.squeeze, self.excite = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * weight[:, :, None, None]


class AttentionGate(nn.Module):
    """A skip, multiplied by a map of one channel (Attention U-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.skip, self.gate = conv(C, C, 1), conv(C, C, 1)
        self.psi = conv(C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.psi(F.relu(self.skip(x) + self.gate(x))))


class Bilinear(nn.Module):
    """Half the resolution and back, to the size that forward() reads from its input."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(C, C, stride=2), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.interpolate(F.relu(self.down(x)), size=x.shape[2:], mode="bilinear", align_corners=False))


class Pyramid(nn.Module):
    """Several rates side by side, with the image's mean: a concatenation of four (ASPP)."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.ModuleList(nn.Conv2d(C, C, 3, padding=rate, dilation=rate) for rate in (1, 2, 3))
        self.mean = conv(C, C, 1)
        self.join = conv(4 * C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        mean = F.interpolate(F.relu(self.mean(pooled)), size=x.shape[2:], mode="nearest")
        return self.join(torch.cat([*(F.relu(rate(x)) for rate in self.rates), mean], 1))


class TwoConcats(nn.Module):
    """One tensor in two concatenations (U-Net++), and twice in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(C, C), conv(2 * C, C), conv(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        b = F.relu(self.b(torch.cat([x, a], 1)))
        return self.c(torch.cat([a, b, x, a], 1))


class Empty(nn.Module):
    """A skip of no channels, as encoders without features at some level have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([F.relu(x), x.new_empty(x.shape[0], 0, *x.shape[2:])], 1))


class Unpool(nn.Module):
    """Max pooling that remembers where, and unpooling (SegNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = conv(C, C), conv(C, C)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = self.pool(x)
        return self.outside(self.unpool(F.relu(self.inside(pooled)), indices))


class Shared(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


class SharedNorm(nn.Module):
    """One convolution called twice, each time with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(C, C)
        self.first, self.second = nn.BatchNorm2d(C), nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(F.relu(self.first(self.conv(x)))))


class Recurrent(nn.Module):
    """One convolution and its batch norm, called again on its own output (R2U-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.step = norm(conv(C, C))

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x + self.step(x + self.step(x)))


class Tied(nn.Module):
    """A transposed convolution with the weight of a convolution (a tied autoencoder)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(C, 2 * C, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(F.relu(self.down(x)), self.down.weight, stride=2)


class ReturnedAndUsed(nn.Module):
    """Logits that are refined once more and added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.coarse, self.fine = conv(3, C), conv(C, C), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(F.relu(self.stem(x)))
        return coarse + self.fine(F.relu(coarse))


class BeforeConv(nn.Module):
    """Batch norm and ReLU before the convolution (DenseNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(C), conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class TwoNorms(nn.Module):
    """One convolution, read by two batch norms; another with two in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.next = conv(C, C), conv(C, C)
        self.a, self.b = nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.row = nn.Sequential(nn.BatchNorm2d(C), nn.BatchNorm2d(C, affine=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.row(self.next(F.relu(self.a(x)) + torch.sigmoid(self.b(x))))


class Functional(nn.Module):
    """Convolutions as functions of parameters that are not called weight."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(C, C, 3, 3) / 12)
        self.offset = nn.Parameter(torch.randn(C) / 10)
        self.norm = nn.BatchNorm2d(C)
        self.up = nn.ParameterDict({"kernel": torch.randn(C, C, 2, 2) / 8})
        self.weight = nn.Parameter(torch.randn(C, C, 3, 3) / 12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(F.conv2d(x, self.kernel, self.offset, padding=1)))
        x = F.conv_transpose2d(x, self.up["kernel"], stride=2)
        return F.conv2d(x, self.weight, stride=2, padding=1)


class Buffered(nn.Module):
    """A fixed filter and a fixed offset, kept in buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sobel", torch.randn(C, C, 3, 3))
        self.register_buffer("offset", torch.randn(1, C, 1, 1))
        self.conv = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(F.conv2d(x, self.sobel, padding=1) + self.offset))  # type: ignore[arg-type]


class ChannelNorm(nn.Module):
    """Layer norm over channels, then a linear layer for each pixel (ConvNeXt)."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = conv(C, C, 7, groups=C)
        self.norm = nn.LayerNorm(C)
        self.wide, self.narrow = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)
        self.scale = nn.Parameter(torch.full((C,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


class ReadsShape(nn.Module):
    """Pads to a multiple of 16 and crops again, by the shape of what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(3, C, stride=2), nn.ReLU(), nn.ConvTranspose2d(C, 2, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % 16, 0, -height % 16))
        return self.net(padded)[..., :height, :width]


class Clash(nn.Module):
    """Names that are one when dots become underscores, with weights of very different size."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleDict({"b_c": conv(C, C)})
        self.a_b = nn.ModuleDict({"c": conv(C, C)})
        self.a_b_c_weight_scale = nn.Parameter(torch.tensor(0.5))
        with torch.no_grad():
            self.a["b_c"].weight.mul_(20)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor) -> Tensor:
        return self.a_b["c"](F.relu(self.a["b_c"](x))) * self.a_b_c_weight_scale


class Bottleneck(nn.Module):
    """A linear layer over the whole of a small bottleneck, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.linear, self.up = conv(C, C, stride=8), nn.Linear(16 * C, 16 * C), conv(C, C)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        small = F.relu(self.down(x))
        mixed = self.drop(F.relu(self.linear(small.flatten(1)))).reshape(small.shape)
        return self.up(F.interpolate(mixed, scale_factor=8.0, mode="nearest"))


class Attention(nn.Module):
    """Attention over pixels in two heads, with one linear layer for query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv(C, C, stride=4)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down(x)
        q, k, v = self.qkv(small.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, C // 2)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        mixed = self.out(mixed).transpose(1, 2).reshape(small.shape)
        return x + F.interpolate(mixed, scale_factor=4.0, mode="bilinear")


class Standardized(nn.Conv2d):
    """A convolution that standardizes its weight in forward()."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5) / 10, self.bias, padding=1)


class Position(nn.Module):
    """A learned offset for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.position = conv(C, C), nn.Parameter(torch.randn(1, C, SIDE, SIDE))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.position


class Split(nn.Module):
    """Channels split in two, one half worked on, then shuffled (ShuffleNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(C, C)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.cat([x, x], 1).chunk(2, 1)
        return F.channel_shuffle(torch.cat([a, F.relu(self.conv(b))], 1), 2)


def norm(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(C), nn.ReLU())


def unet(**options: object) -> Callable[[], nn.Module]:
    return UNet(**{"classes": 2, "in_channels": 3, "width": C, "depth": 2, **options})  # type: ignore[arg-type]


def activated(activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: body(conv(C, C), nn.BatchNorm2d(C), activation(), conv(C, C), activation())


ZOO: dict[str, Callable[[], nn.Module]] = {
    "unet": unet(),
    "unet without norm": unet(norm="none"),
    "unet with instance norm": unet(norm="instance"),
    "unet with group norm": unet(norm="group"),
    "unet with nearest": unet(up="nearest"),
    "unet unpadded": unet(padded=False, depth=1),
    "unet of one class": unet(classes=1, depth=1),
    "residual": lambda: body(Residual()),
    "projection": lambda: body(Projection(), nn.Upsample(scale_factor=2), after=2 * C),
    "depthwise": lambda: body(norm(conv(C, C, groups=C, bias=False)), norm(conv(C, C, 1))),
    "grouped": lambda: body(norm(conv(C, C, groups=4))),
    "strided pointwise": lambda: body(conv(C, C, 1, stride=2), nn.ReLU()),
    "dilated": lambda: body(norm(nn.Conv2d(C, C, 3, padding=2, dilation=2))),
    "same padding": lambda: body(norm(nn.Conv2d(C, C, 3, padding="same"))),
    "transposed": lambda: body(nn.MaxPool2d(2), norm(nn.ConvTranspose2d(C, C, 2, stride=2))),
    "transposed in groups": lambda: body(
        nn.MaxPool2d(2), norm(nn.ConvTranspose2d(C, C, 2, stride=2, groups=4, bias=False))
    ),
    "transposed overlapping": lambda: body(
        nn.MaxPool2d(2), norm(nn.ConvTranspose2d(C, C, 3, stride=2, padding=1, output_padding=1))
    ),
    "transposed asymmetric": lambda: body(
        nn.MaxPool2d(2), nn.LeakyReLU(), conv(C, C), nn.ConvTranspose2d(C, C, 2, stride=2), nn.LeakyReLU(), conv(C, C)
    ),
    "transposed by four": lambda: body(nn.AvgPool2d(4), nn.ConvTranspose2d(C, C, 4, stride=4, bias=False), nn.PReLU()),
    "squeeze and excite": lambda: body(SqueezeExcite()),
    "attention gate": lambda: body(AttentionGate()),
    "bilinear": lambda: body(Bilinear()),
    "pyramid": lambda: body(Pyramid()),
    "two concats": lambda: body(TwoConcats()),
    "empty": lambda: body(Empty()),
    "unpool": lambda: body(Unpool()),
    "pixel shuffle": lambda: body(nn.AvgPool2d(2), conv(C, 4 * C), nn.PixelShuffle(2), conv(C, C)),
    "leaky relu": activated(lambda: nn.LeakyReLU(0.1)),
    "prelu": activated(lambda: nn.PReLU(C)),
    "silu": activated(lambda: nn.SiLU(inplace=True)),
    "gelu": activated(nn.GELU),
    "hardswish": activated(nn.Hardswish),
    "relu6": activated(nn.ReLU6),
    "elu": activated(nn.ELU),
    "mish": activated(nn.Mish),
    "shared": lambda: body(Shared()),
    "shared with norms": lambda: body(SharedNorm()),
    "recurrent": lambda: body(Recurrent()),
    "tied": lambda: body(Tied()),
    "returned and used": ReturnedAndUsed,
    "norm before conv": lambda: body(BeforeConv(), after=2 * C),
    "two norms": lambda: body(TwoNorms()),
    "reflect": lambda: body(norm(nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect"))),
    "functional": lambda: body(Functional()),
    "buffers": lambda: body(Buffered()),
    "channel norm": lambda: body(ChannelNorm()),
    "reads shape": ReadsShape,
    "clash": lambda: body(Clash()),
    "bottleneck": lambda: body(Bottleneck()),
    "attention": lambda: body(Attention()),
    "weight norm": lambda: body(nn.utils.parametrizations.weight_norm(conv(C, C)), nn.BatchNorm2d(C)),
    "spectral norm": lambda: body(nn.utils.parametrizations.spectral_norm(conv(C, C))),
    "standardized": lambda: body(Standardized(C, C, 3), nn.GroupNorm(4, C)),
    "position": lambda: body(Position()),
    "split": lambda: body(Split(), after=2 * C),
    "volume": lambda: nn.Sequential(
        nn.Conv3d(3, C, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.ConvTranspose3d(C, C, 2, stride=2),
        nn.BatchNorm3d(C),
        nn.ReLU(),
        nn.Conv3d(C, 2, 1),
    ),
    "avg pool": lambda: body(nn.AvgPool2d(2), conv(C, C), nn.Upsample(scale_factor=2, mode="nearest")),
}

# One of each kind of trap; the whole zoo is slow.
FAST = (
    "unet of one class",
    "projection",
    "transposed in groups",
    "transposed overlapping",
    "transposed asymmetric",
    "two concats",
    "empty",
    "shared with norms",
    "recurrent",
    "tied",
    "two norms",
    "functional",
    "buffers",
    "weight norm",
    "standardized",
    "volume",
)
EVERY = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in ZOO]
