"""Config: a recipe's TOML, then dotted overrides, validated together and frozen; all mistakes are reported in one message."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tomli_w
from annotated_types import Ge, Interval

from sprintnet.data.settings import AugmentSettings, DataSettings
from sprintnet.errors import SettingsError, did_you_mean, nearest
from sprintnet.models.settings import ModelSettings
from sprintnet.runs.folder import dotted
from sprintnet.runs.shards import RULE, part_of
from sprintnet.setting_values import convert, parse, shown
from sprintnet.training.settings import (
    DistillSettings,
    HeadSettings,
    MuonSettings,
    OptimSettings,
    ScalerSettings,
    ScheduleSettings,
)  # fmt: skip

Adaptable = Literal[  # settings that may be `auto`
    "epochs",
    "batch_size",
    "model.width",
    "model.stride",
    "optim.head_lr",
    "augment.crop_padding",
    "augment.cutout",
    "augment.flip",
]
MAX_MISTAKES = 20  # in one message
LEFT_TO_THE_MACHINE: Mapping[str, Any] = {"threads": 0, "precision": "auto"}
"""Settings that each machine may decide for itself, with the values that let it."""
LEARNING_RATES = ("optim.max_lr", "optim.head_lr", "muon.max_lr")


@dataclass(frozen=True)
class Config:
    """All settings of a run: the recipe's values, changed by overrides."""

    epochs: Annotated[int, Interval(ge=0, le=1_000_000)] = 24
    """Passes over the training images.

    0, with head.fit: only the last layer is fitted."""
    batch_size: Annotated[int, Interval(ge=2, le=1_000_000)] = 512
    """Images per step."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Label smoothing alpha: targets are (1 - alpha) * one_hot + alpha / K."""
    l1: Annotated[float, Ge(0)] = 0.0
    """Weight of the L1 penalty on all parameters (the article names 1e-7, switched off)."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of the initial weights, the order of the images and their augmentation."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of training; auto: bf16 where the processor or the GPU (CUDA, compute capability 8.0) has it, else fp16
    with CUDA and fp32 on a CPU, where fp16 is slow."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on; auto: the GPU if PyTorch sees one. Training on Apple's GPUs, mps, is not tested."""
    threads: Annotated[int, Interval(ge=0, le=256)] = 0
    """CPU threads; 0: one for each available core (affinity and container quota), at most OMP_NUM_THREADS or what
    torch.set_num_threads has set, on Linux minus the cores that other processes keep busy.

    Another number of threads rounds differently: set it where a run must be repeated bit for bit."""
    deterministic: bool = True
    """On a GPU, use deterministic kernels only: a resumed run ends in the same bits. Off: cuDNN tries several, and takes the
    fastest."""
    cuda_graph: bool = True
    """With CUDA, record each kind of step as a CUDA graph, which is launched as one; other devices ignore it."""
    compile: bool = False
    """With CUDA, compile network and loss by torch.compile: slow at first, for many runs or long ones."""
    checkpoint_seconds: Annotated[float, Ge(0)] = 60.0
    """Seconds between checkpoints within an epoch (the end of each epoch is always saved); 0: after every step."""
    tta: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Test-time augmentation for images whose confidence is at or below this: the weighted mean of the logits of six augmented
    images (as it is and shifted by a pixel in two directions, each mirrored too). 0: no image; 1: all images."""
    class_weights: Literal["none", "balanced"] = "none"
    """Class weights in the training loss; balanced: inverse to the class frequency, 1 on average."""
    sampling: Literal["all", "balanced"] = "all"
    """Images of an epoch; all: each once; balanced: as many in total, each class equally often."""
    init_from: str = ""
    """Run (folder or name), export folder or weights file to start from: its weights and normalisation, with a new head where
    the classes differ; `imagenet`: weights pretrained on ImageNet (not of davidnet and sprintnet); empty: new weights."""
    freeze_backbone: bool = False
    """Train only the head, on the features of the model that init_from names."""
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay by step of the exponential moving average of the weights, which is kept instead of them, such as 0.99; 0: none."""
    auto: tuple[Adaptable, ...] = ()
    """Settings that are adapted to the dataset; their values here suit CIFAR-10. `model.width=auto` adds one, `model.width=96`
    removes it, `auto=` removes all. Training logs what it chose."""
    lr_find: bool = False
    """Run the learning-rate finder first and train with the peak that it recommends, instead of the recipe's. The learning
    rates of several optimizers keep their proportions."""
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    muon: MuonSettings = field(default_factory=MuonSettings)
    scaler: ScalerSettings = field(default_factory=ScalerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)

    @property
    def peak_lr(self) -> float:
        """The peak learning rate of the convolution filters, as shown in the training table."""
        return self.muon.max_lr or self.optim.scaled_to(self.batch_size).max_lr

    @property
    def filter_momentum(self) -> float:
        """The momentum of the convolution filters."""
        return self.muon.momentum if self.muon.max_lr else self.optim.momentum

    def with_peak(self, lr: float) -> "Config":
        """Returns these settings with a peak that lr_find has found; all learning rates keep their proportions."""
        ratio = lr / self.peak_lr
        optim = replace(self.optim, max_lr=self.optim.max_lr * ratio, head_lr=self.optim.head_lr * ratio)
        return replace(self, lr_find=False, optim=optim, muon=replace(self.muon, max_lr=self.muon.max_lr * ratio))

    def changed(self, values: Mapping[str, Any]) -> "Config":
        """Returns the settings with values under dotted keys replaced, such as `{"model.width": 96}`; nothing is validated."""
        changed: Config = _build(Config, {**dotted(asdict(self)), **values})
        return changed

    def mistakes(self) -> list[str]:
        """Returns a message for each broken rule between settings."""
        found = []
        for section in fields(self):
            part = getattr(self, section.name)
            for name, rule in part.mistakes() if hasattr(part, "mistakes") else ():
                shown = ",".join(f"{number:g}" for number in getattr(part, name))
                found.append(f"{section.name}.{name}={shown}: {rule}")
        if self.data.fold and not part_of(self.data.fold):
            found.append(f"data.fold={self.data.fold}: {RULE}, such as 1/5")
        if not self.epochs and not self.head.fit:
            found.append("epochs=0: trains nothing; use 1 or more, or head.fit=true")
        if self.head.fit and not self.init_from:
            found.append("head.fit=true: fits the head of a trained network only; name one: init_from=imagenet, or a run")
        if self.freeze_backbone and not self.init_from:
            found.append("freeze_backbone=true: trains the head of a trained network only; name one: init_from=NAME")
        if self.class_weights == "balanced" and self.sampling == "balanced":
            found.append("class_weights=balanced: with sampling=balanced rare classes would count twice; leave one out")
        return found

    def to_toml(self) -> str:
        """Returns TOML that `load_config` reads back to an equal Config."""
        return tomli_w.dumps(asdict(self))


def recipes() -> dict[str, dict[str, str]]:
    """Returns the shipped recipes: name -> the facts at the head of its file (network, accuracy, training, use and others)."""
    found = {}
    for entry in sorted(_recipe_folder().iterdir(), key=lambda entry: entry.name.removesuffix(".toml")):
        if entry.name.endswith(".toml"):
            head = takewhile(lambda line: ": " in line, entry.read_text("utf-8").splitlines())
            found[entry.name.removesuffix(".toml")] = dict(line.removeprefix("# ").split(": ", 1) for line in head)
    return found


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Returns the Config of a recipe (a shipped name, or the path of a TOML file) with `section.key=value` overrides applied.

    Raises SettingsError with every mistake of recipe and overrides in one message.
    """
    given: Mapping[str, Any] = {}
    mistakes = []
    try:
        given = dotted(_read_recipe(recipe))
    except SettingsError as error:
        mistakes = [str(error)]
    except RecursionError:
        mistakes = [f"recipe {recipe}: has too many levels of tables; write the settings as the shipped recipes do"]
    return _config(given, overrides, mistakes)


def parse_config(text: str) -> Config:
    """Returns the Config of a recipe's text, as `to_toml` returns it; raises SettingsError for mistakes."""
    return _config(dotted(tomllib.loads(text)), (), [])


def _config(given: Mapping[str, Any], overrides: Sequence[str], mistakes: list[str]) -> Config:
    """Returns the Config of a recipe's values and overrides; raises SettingsError with these mistakes and all others."""
    hints, values = dict(_leaves(Config)), {}
    typed = [_split_override(override) for override in overrides]
    for is_text, items in ((False, given.items()), (True, typed)):
        for key, value in items:
            if key in get_args(Adaptable) and value == "auto":
                continue
            try:
                values[key] = _read_setting(hints, key, value, is_text, with_hint=len(mistakes) < MAX_MISTAKES)
            except ValueError as broken_rule:
                mistakes.append(f"{key}: {broken_rule}" if value is None else f"{key}={shown(value)}: {broken_rule}")
    automatic = {*values.get("auto", ()), *(key for key, value in given.items() if value == "auto")}
    for key, value in typed:
        (automatic.add if value == "auto" else automatic.discard)(key)
    values["auto"] = tuple(key for key in get_args(Adaptable) if key in automatic)
    config: Config = _build(Config, values)
    mistakes += config.mistakes()
    if config.lr_find and (named := [f"{key}={value}" for key, value in typed if key in LEARNING_RATES]):
        mistakes.append(f"{named[0]}: lr_find=true would replace it; leave one of them out (lr_find=false)")
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        more = [f"and {len(mistakes) - MAX_MISTAKES:,} more"] * (len(mistakes) > MAX_MISTAKES)
        lines = "\n  ".join([*mistakes[:MAX_MISTAKES], *more])
        raise SettingsError(f"{count} in the settings; nothing was started:\n  {lines}")
    return config


def resumed(file: Path, config: Config) -> Config:
    """Returns the settings to go on with in the folder of config.toml, if it is there: these; what they leave to the machine,
    as the folder has it. Raises SettingsError where the folder has other settings."""
    if not file.exists():
        return config
    old = load_config(file)
    config = replace(config, **{key: getattr(old, key) for key in _left_open(config)})
    if changed := differences(replace(old, **{key: getattr(config, key) for key in _left_open(old)}), config):
        rule = "resume with these settings, or start another run"
        raise SettingsError(f"{file.parent}: was started with other settings:\n  " + "\n  ".join(changed) + f"\n{rule}")
    return config


def _left_open(config: Config) -> list[str]:
    """Returns the settings whose value leaves them to the machine."""
    return [key for key, value in LEFT_TO_THE_MACHINE.items() if getattr(config, key) == value]


def differences(old: Config, new: Config) -> list[str]:
    """Returns one line, `key: old -> new`, for each setting that differs."""
    before, after = dotted(asdict(old)), dotted(asdict(new))
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def _recipe_folder() -> Any:
    return resources.files("sprintnet") / "recipes"


def _read_recipe(recipe: str | Path) -> Mapping[str, Any]:
    known = recipes()
    path = Path(recipe)
    if path.suffix != ".toml" and str(recipe) not in known:
        rule = f"use one of {', '.join(known)}, or the path of a .toml file{did_you_mean(str(recipe), known)}"
        raise SettingsError(f"recipe {recipe}: there is no such recipe; {rule}")
    try:
        content = path.read_bytes() if path.suffix == ".toml" else (_recipe_folder() / f"{recipe}.toml").read_bytes()
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        rule = f"cannot be read ({error.strerror}); name a file, or one of: {', '.join(known)}"
        raise SettingsError(f"recipe {recipe}: {rule}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"recipe {recipe}: not valid TOML: {error}") from None


def _leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(settings, include_extras=True).items():
        if is_dataclass(hint):
            yield from _leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _split_override(override: str) -> tuple[str, str | None]:
    key, equals, value = override.partition("=")
    key = "data.name" if key == "data" else key.replace("-", "_")
    return (key, value) if equals else (override, None)


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    leaf = key.rpartition(".")[2]
    leaves = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    same = (name for other, name in leaves.items() if leaf in (other, other.split("_")[-1]))  # max_lr and lr: optim.max_lr
    meant = next(same, None) or nearest(key, ("data", *known)) or leaves.get(nearest(leaf, leaves) or "")
    return f"; did you mean {meant}?" if meant else ""


def _read_setting(hints: Mapping[str, Any], key: str, value: Any, is_text: bool, with_hint: bool) -> Any:
    """Returns the value of a setting in its type; raises ValueError with the rule that is broken."""
    if value is None:
        raise ValueError("not understood; an override is written key=value or --key value, such as epochs=3, after the recipe")
    if key not in hints:
        hint = _did_you_mean(key, hints) if with_hint else ""
        raise ValueError(f"there is no such setting{hint or '; `sprintnet train --help all` lists them'}")
    return convert(hints[key], parse(hints[key], value) if is_text else value)


def _build(settings: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    arguments = {}
    for name, hint in get_type_hints(settings).items():
        if is_dataclass(hint):
            arguments[name] = _build(hint, values, f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return settings(**arguments)
