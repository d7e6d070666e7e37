"""Settings of the data: which images, which splits, which augmentation (no torch: errors are found before it loads)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval


@dataclass(frozen=True)
class DataSettings:
    """Which images to train on."""

    name: str = "cifar10"
    """A built-in dataset (`sprintnet data list`) or a custom one: a folder of <class>/*, or of train/<class>/* and optionally
    val/<class>/* and test/<class>/*; a table (.csv, .parquet) of path, label and optionally split and group; arrays (.npz); a
    folder saved by Hugging Face's datasets."""
    source: str = ""
    """A local folder or archive to take a built-in dataset from; empty: the cache, then the network."""
    val: Annotated[float, Interval(ge=0, le=0.5)] | Literal["auto"] = "auto"
    """Fraction of each training class held out to calibrate probabilities, the same images for all seeds. auto: of a built-in
    dataset 1,000 images, or a tenth if that is less; of a custom dataset without a validation set a tenth. 0 (of a built-in
    dataset only): none, probabilities are not calibrated, and Val columns are the test set."""
    fold: str = ""
    """Part K/N of the training and validation images that is the validation set instead: one of the N folds of a cross-
    validation, by class, with groups and duplicates together. The test set is not used. Empty: none."""
    test: Annotated[float, Interval(ge=0, le=0.5)] = 0.2
    """Fraction of each class held out for testing, of a custom dataset without splits."""
    size: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Side in pixels to which images of a custom dataset are resized. 0: their own if all have one of at most 96, else 64."""
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    """How images of another shape are resized: stretched; fitted, with black bars; or cropped at the centre."""
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    """Channels of a custom dataset; auto: grey if all images are, else rgb, with white instead of transparency."""
    skip_bad: bool = False
    """Leave out images of a custom dataset that cannot be used, and count them, instead of stopping."""
    dedupe: bool = False
    """Leave out training images that are also in the validation or test set, and validation images that are in the test set."""


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation of training images; 0 switches a part off."""

    crop_padding: Annotated[int, Interval(ge=0, le=32)] = 2
    """Pixels of padding on each side before a random crop to the image's size."""
    padding: Literal["zeros", "reflect"] = "zeros"
    """Content of the padding: the mean colour, or the reflected image."""
    flip: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability of a horizontal flip."""
    alternate_flip: bool = False
    """Sample the flips once and invert them after each epoch, instead of sampling in each epoch."""
    affine: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability of a random rotation, shift and scaling."""
    rotate: Annotated[float, Interval(ge=0, le=180)] = 5.0
    """Maximum rotation, in degrees."""
    shift: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Maximum shift, as a fraction of the image's side."""
    scale: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Maximum change of scale: 0.05 is 0.95 to 1.05."""
    cutout: Annotated[int, Ge(0)] = 8
    """Side of the erased square, in pixels."""
    trivial: bool = False
    """TrivialAugment: one of fourteen changes of shape and colour for each image, of random strength."""
    mixup: Annotated[float, Interval(ge=0, le=100)] = 0.0
    """Mixup: each image is mixed with another by a share of Beta(mixup, mixup), its label too."""
    cutmix: Annotated[float, Interval(ge=0, le=100)] = 0.0
    """CutMix: a box of each image shows another, its area a share of Beta(cutmix, cutmix). With mixup, each image takes one."""

    @property
    def mixes(self) -> bool:
        """Whether labels are mixed."""
        return bool(self.mixup or self.cutmix)
