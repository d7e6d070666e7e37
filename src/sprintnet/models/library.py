"""Networks of timm or torchvision, where they are installed: their feature maps, and a last layer of ours."""

import hashlib
from importlib import import_module
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from sprintnet.data.preprocessing import Normalisation
from sprintnet.errors import DataError, SettingsError
from sprintnet.models.backbone import Backbone

SIDES = 64, 128
"""Of the images by which a network is tried: of twice the side, a feature map is larger."""


class LibraryNetwork(Backbone):
    """A network of a library by name, such as `timm:resnet18`: images (B, channels, H, W) -> logits (B, classes)."""

    feature_layers = ("body",)

    def __init__(
        self, name: str, classes: int, channels: int, dropout: float = 0.0, enlarge_to: int = 0, is_pretrained: bool = False
    ):
        """Raises SettingsError for a library or a network that is not there, or one that gives no feature map; DataError for
        pretrained weights that cannot be obtained."""
        super().__init__(enlarge_to)
        self.body = _body(name, channels, is_pretrained)
        self.add_head(classes, _width(name, self.body, channels), dropout)
        self.parts = (*(f"body.{part}" for part, layer in self.body.named_children() if list(layer.parameters())), "linear")

    def maps(self, x: Tensor) -> Tensor:
        """Returns the last feature map (B, C, h, w)."""
        features: Tensor = self.body(x)
        return features

    @property
    def normalisation(self) -> Normalisation:
        """What the pretrained weights expect: the library's values, of ImageNet where it has none."""
        known = getattr(self.body, "pretrained_cfg", {})
        mean, std = known.get("mean", (0.485, 0.456, 0.406)), known.get("std", (0.229, 0.224, 0.225))
        return Normalisation(tuple(mean), tuple(std))

    def digest(self) -> str:
        """Returns the SHA-256 of the body's weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.body.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _body(name: str, channels: int, is_pretrained: bool) -> nn.Module:
    """Returns the part of a network before its pooling."""
    library, _, network = name.partition(":")
    try:
        body = (_of_timm if library == "timm" else _of_torchvision)(network, channels, is_pretrained)
    except ImportError as error:
        raise SettingsError(f"model.name={name}: {library} cannot be imported ({error}); pip install {library}") from None
    except SettingsError:
        raise
    except Exception as error:  # a library may raise anything
        cause = " ".join(str(error).split())[:200]
        if is_pretrained:
            remedy = f"name a network of which {library} has weights, or train new ones: init_from= head.fit=false"
            raise DataError(f"init_from=imagenet: the weights of {name} cannot be obtained ({cause}); {remedy}") from None
        raise SettingsError(f"model.name={name}: {library} does not build it ({cause}); name another network") from None
    return body


def _of_timm(network: str, channels: int, is_pretrained: bool) -> nn.Module:
    timm: Any = import_module("timm")
    body: nn.Module = timm.create_model(network, pretrained=is_pretrained, num_classes=0, global_pool="", in_chans=channels)
    return body


def _of_torchvision(network: str, channels: int, is_pretrained: bool) -> nn.Module:
    torchvision: Any = import_module("torchvision")  # by name: nothing else may need it
    if channels != 3:
        found = f"model.name=torchvision:{network}: takes RGB images, not {channels} channels"
        raise SettingsError(f"{found}; set data.channels=rgb")
    whole = torchvision.models.get_model(network, weights="DEFAULT" if is_pretrained else None)
    body: nn.Module | None = getattr(whole, "features", None)
    if body is None:  # such as of a ResNet: the layers before the pooling
        body = nn.Sequential()
        for name, layer in takewhile(lambda child: child[0] != "avgpool", whole.named_children()):
            body.add_module(name, layer)
    return body


def _width(name: str, body: nn.Module, channels: int) -> int:
    """Returns the number of channels of a network's feature map."""
    was_training = body.training
    body.eval()
    with torch.no_grad():
        try:
            small, large = (body(torch.zeros(1, channels, side, side)).shape for side in SIDES)
        except Exception:  # such as of a transformer, which takes images of one size
            small = large = ()
    body.train(was_training)
    if not (len(small) == 4 and small[1] == large[1] and small[2] < large[2] and small[3] < large[3]):
        rule = "gives no feature map (B, C, H, W) of images of any size; name a convolutional network"
        raise SettingsError(f"model.name={name}: {rule}")
    return int(small[1])
