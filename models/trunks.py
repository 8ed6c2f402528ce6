"""Convolutional trunks: [N, C, H, W] images -> [N, D, h, w] maps, not pooled."""

from torch import Tensor, nn


class SmallCNN(nn.Sequential):
    """Three 3x3 convolutions of stride 2 with batch norm and ReLU: the demo set's encoder."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (12, 24, 48)):
        layers = []
        for before, after in zip((channels, *widths), widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)
        self.width = widths[-1]


class ResNet18(nn.Module):
    """torchvision's ResNet-18 up to its last stage, for any number of input channels.

    Initialised as in the official release: convolutions Kaiming normal (fan out), batch-norm
    weights from N(1, 0.02), biases 0.
    """

    width = 512

    def __init__(self, channels: int):
        super().__init__()
        from torchvision.models import resnet18  # 1.5 s: imported only where it is used

        net = resnet18(weights=None)
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.Sequential(stem, net.layer1, net.layer2, net.layer3, net.layer4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Takes torchvision's weights, but for the classifier; every other tensor must fit."""
        stem = {"conv1": "stages.0.0", "bn1": "stages.0.1"}
        named = {}
        for key, value in state.items():
            head, _, rest = key.partition(".")
            if head != "fc":
                place = stem.get(head) or f"stages.{head.removeprefix('layer')}"
                named[f"{place}.{rest}"] = value
        # Files of old versions of PyTorch lack the counters of batches.
        counters = {k: v for k, v in self.state_dict().items() if k.endswith("batches_tracked")}
        self.load_state_dict(counters | named)

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)


TRUNKS = {"resnet18": ResNet18, "small": SmallCNN}
