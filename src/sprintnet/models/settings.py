"""Settings of the network (no torch here: mistakes are found before it loads)."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from sprintnet.setting_values import Pattern

OF_ANY_WIDTH = ("davidnet", "sprintnet")
"""The networks of this package that are made for small images; the others enlarge them, and can be pretrained."""
NAMES = Pattern(
    r"davidnet|sprintnet|efficientnet_lite0|(timm|torchvision):\w[\w.-]*",
    "must be davidnet, sprintnet, efficientnet_lite0, timm:NAME or torchvision:NAME",
)


@dataclass(frozen=True)
class ModelSettings:
    """Which network to build; classes, channels and image size come from the data."""

    name: Annotated[str, NAMES] = "davidnet"
    """The network's name; `timm:NAME` and `torchvision:NAME`: a convolutional network of a library that is installed. All but
    davidnet and sprintnet can start from weights pretrained on ImageNet: init_from=imagenet."""
    width: Annotated[int, Interval(ge=1, le=1024)] = 64
    """Channels of the first trained convolution; the later ones have 2, 4 and 8 (davidnet) or 4 (sprintnet) times as many. The
    other networks have one width and ignore it."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer (the article's option, off there)."""
    stride: Annotated[int, Interval(ge=1, le=16)] = 1
    """Step of the first layer, in pixels: with 2, images of twice the side cost about as much (sprintnet's; others: 1)."""
    enlarge_to: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Side in pixels to which the network enlarges smaller images, since pretrained weights expect large ones
    (of davidnet and sprintnet: 0)."""

    @property
    def title(self) -> str:
        """The network's name, and its width where it has any."""
        return f"{self.name}, width {self.width}" if self.name in OF_ANY_WIDTH else self.name
