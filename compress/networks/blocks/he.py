"""He initialisation (He et al. 2015, arXiv 1502.01852, section 2.2)."""

from torch import nn


def he_initialised(net: nn.Module) -> None:
    """Draw, in place, every convolution's weights so that rectified activations keep their variance; biases are 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
