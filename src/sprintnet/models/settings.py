"""Settings of the network (no torch here: mistakes are found before it loads)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval


@dataclass(frozen=True)
class ModelSettings:
    """Which network to build; classes, channels and image size come from the data."""

    name: Literal["davidnet", "sprintnet"] = "davidnet"
    """The network's name."""
    width: Annotated[int, Interval(ge=1, le=1024)] = 64
    """Channels of the first trained convolution; the later ones have 2, 4 and 8 (davidnet) or 4 (sprintnet) times as many."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer (the article's option, off there)."""
    stride: Annotated[int, Interval(ge=1, le=16)] = 1
    """Step of the first layer, in pixels: with 2, images of twice the side cost about as much (sprintnet's; davidnet: 1)."""
