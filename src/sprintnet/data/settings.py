"""Settings of the data: which images, which split, which augmentation (no torch here: mistakes are found before it loads)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval


@dataclass(frozen=True)
class DataSettings:
    """Which images to train on."""

    name: str = "cifar10"
    """A named data set (`sprintnet data list`), or pictures of your own: a folder of <class>/*, or of train/<class>/* and
    val/<class>/*, test/<class>/*; a table (.csv, .parquet) of path, label and, if you like, split and group; arrays
    (.npz); a folder that Hugging Face's datasets saved."""
    source: str = ""
    """A local folder or archive to take a named data set from; empty: the cache, then the network."""
    val: Annotated[float, Interval(ge=0, le=0.5)] = 0.0
    """Share of each training class held out for validation, the same images for all seeds. 0: of a named set none, and Val
    columns are the test set; of your own pictures, where they bring no validation set, a tenth, since something has to judge
    the run."""
    test: Annotated[float, Interval(ge=0, le=0.5)] = 0.2
    """Share of each class of your own pictures that is set aside for testing, where they bring no test set."""
    size: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Side, in pixels, to which your own pictures are brought. 0: theirs, if all have one of 96 pixels or less, else 64."""
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    """How pictures of another shape are brought to it: stretched; made to fit, with black beside them; their middle cut out."""
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    """Colours of your own pictures; auto: grey if all are, else rgb, where what is transparent lies on white."""
    skip_bad: bool = False
    """Leave pictures of your own that cannot be used out, and count them, instead of stopping."""
    dedupe: bool = False
    """Leave training images out that are in the validation or test set too, and validation images that are in the test set."""


@dataclass(frozen=True)
class AugmentSettings:
    """How training images vary; 0 switches a part off."""

    crop_padding: Annotated[int, Interval(ge=0, le=32)] = 2
    """Pixels of padding on each side before a random crop back to the image's size."""
    padding: Literal["zeros", "reflect"] = "zeros"
    """What the padding shows: the mean colour, or the image mirrored at its border."""
    flip: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability of a horizontal flip."""
    alternate_flip: bool = False
    """Draw the flips once and turn every image over after each epoch, instead of drawing each epoch anew."""
    affine: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability that an image is rotated, shifted and scaled."""
    rotate: Annotated[float, Interval(ge=0, le=180)] = 5.0
    """Largest rotation, in degrees, either way."""
    shift: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Largest shift, as a share of the image's side, either way."""
    scale: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Largest change of scale, either way: 0.05 is 0.95 to 1.05."""
    cutout: Annotated[int, Ge(0)] = 8
    """Side, in pixels, of the square that is cut out (set to the mean colour)."""
