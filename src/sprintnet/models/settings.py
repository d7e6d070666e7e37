"""Settings of the network (no torch here: mistakes are found before it loads)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval


@dataclass(frozen=True)
class ModelSettings:
    """Which network to build; classes, channels and image size come from the data."""

    name: Literal["davidnet", "sprintnet", "efficientnet_lite0"] = "davidnet"
    """The network's name. efficientnet_lite0 can start from weights pretrained on ImageNet: init_from=imagenet."""
    width: Annotated[int, Interval(ge=1, le=1024)] = 64
    """Channels of the first trained convolution; the later ones have 2, 4 and 8 (davidnet) or 4 (sprintnet) times as many. Of
    efficientnet_lite0, which has one width, it is ignored."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer (the article's option, off there)."""
    stride: Annotated[int, Interval(ge=1, le=16)] = 1
    """Step of the first layer, in pixels: with 2, images of twice the side cost about as much (sprintnet's; others: 1)."""
    enlarge_to: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Side in pixels to which the network enlarges smaller images, since pretrained weights expect large ones
    (efficientnet_lite0's; others: 0)."""
