"""The layer table of a network, in the form of the article's: one row a layer, in the order in which they finish."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

MEGABYTE = 1024**2
BYTES = 4  # fp32
TABLE_WIDTH = 64


@dataclass(frozen=True)
class Layer:
    """One row: the layer's place in the network, its type, its output shape without the batch, its own parameters."""

    name: str
    type: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class LayerTable:
    """The layers of a network and the totals over them."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    parameters: int
    trainable: int
    blocks: tuple[str, ...]
    """The names of the larger parts, in order: a layer's name begins with that of its block."""
    skips: tuple[tuple[str, ...], ...]
    """For each sum, the layers that one of its terms passes by."""
    activated: tuple[str, ...]
    """The layers after which an activation follows that is a function, no layer of its own."""

    def __str__(self) -> str:
        """Returns the article's table; sizes are of one image in fp32, activations counted forward and backward."""
        lines = ["-" * TABLE_WIDTH, f"{'Layer (type)':>20} {'Output Shape':>25} {'Param #':>15}", "=" * TABLE_WIDTH]
        for number, layer in enumerate(self.layers, 1):
            shape = str([-1, *layer.shape])
            lines.append(f"{f'{layer.type}-{number}':>20} {shape:>25} {layer.parameters:>15,}")
        values = sum(torch.Size(layer.shape).numel() for layer in self.layers)
        sizes = {
            "Input size": torch.Size(self.input_shape).numel() * BYTES / MEGABYTE,
            "Forward/backward pass size": 2 * values * BYTES / MEGABYTE,
            "Params size": self.parameters * BYTES / MEGABYTE,
        }
        return "\n".join(
            [
                *lines,
                "=" * TABLE_WIDTH,
                f"Total params: {self.parameters:,}",
                f"Trainable params: {self.trainable:,}",
                f"Non-trainable params: {self.parameters - self.trainable:,}",
                "-" * TABLE_WIDTH,
                *(f"{name} (MB): {size:.2f}" for name, size in sizes.items()),
                f"Estimated Total Size (MB): {sum(sizes.values()):.2f}",
                "-" * TABLE_WIDTH,
            ]
        )


def layer_table(model: nn.Module, image_shape: tuple[int, int, int]) -> LayerTable:
    """Returns the table of a network for images of (height, width, channels); the network is left as it was."""
    layers: list[Layer] = []

    def record(name: str, layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        own = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        layers.append(Layer(name, _kind(layer), tuple(output.shape[1:]), own))

    shown = {name: layer for name, layer in model.named_modules() if name and not isinstance(layer, nn.Sequential)}
    hooks = [layer.register_forward_hook(partial(record, name)) for name, layer in shown.items()]
    was_training = model.training
    height, width, channels = image_shape
    image = torch.zeros(1, channels, height, width, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return LayerTable(
        tuple(layers),
        (channels, height, width),
        parameters=sum(count for count, _ in counts),
        trainable=sum(count for count, trainable in counts if trainable),
        blocks=tuple(getattr(model, "feature_layers", ())),
        skips=tuple(_declared(model, "skipped_by")),
        activated=tuple(name for names in _declared(model, "activated") for name in names),
    )


def _declared(model: nn.Module, attribute: str) -> Iterator[tuple[str, ...]]:
    """Yields the children's names for each part that declares some under this attribute."""
    for name, part in model.named_modules():
        if children := getattr(part, attribute, ()):
            yield tuple(f"{name}.{child}".lstrip(".") for child in children)


def _kind(layer: nn.Module) -> str:
    """Returns the name of PyTorch's layer that this is a kind of, or its own."""
    names = [kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn.modules")]
    return names[0] if names[0] != "Module" else type(layer).__name__
