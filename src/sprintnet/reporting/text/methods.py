"""How the numbers of a report come about: the method and the number of images of each."""

from collections.abc import Iterator, Mapping
from typing import Any

from sprintnet.reporting.text.task_scores import accuracy_name
from sprintnet.runs.folder import SPLIT_TITLES, evaluation_split


def method_lines(metrics: Mapping[str, Any], tta: float) -> Iterator[str]:
    """Yields a sentence or two for each kind of number in metrics.json; `tta` is the setting of that name."""
    split = evaluation_split(metrics)
    evaluated, bins = metrics[split], len(metrics[split]["calibration"]["reliability"])
    images = f"{evaluated['images']:,} {SPLIT_TITLES[split]} images"
    name = accuracy_name(evaluated).capitalize()
    yield f"{name}: share of {images}, without test-time augmentation; 95% interval: Wilson 1927."
    if "tta" in evaluated:
        unsure = f"the images ({evaluated['tta']['fraction']:.0%}) whose confidence as trained is at most {tta:g}"
        chosen = "all of them" if tta >= 1 else unsure
        yield f"TTA (test-time augmentation): the weighted mean of the logits of shifted and mirrored views, for {chosen}."
    yield "Precision, recall: 95% intervals by Wilson 1927; F1: that of the Jaccard index J, mapped by 2 J / (1 + J)."
    if "curves" in evaluated:
        yield "ROC and precision-recall curves: each class against the rest; AP is not interpolated; intervals: Wilson 1927."
    yield f"ECE: {bins} bins of equal width (Guo et al. 2017); adaptive ECE: of equal count (Nixon et al. 2019); {images}."
    if metrics["temperature"] is not None:
        undone = "label smoothing is undone, (p - alpha / K) / (1 - alpha), where that lowers the NLL of the held-out images"
        yield f"Calibration: {undone}; then a temperature minimises it (Guo et al. 2017)."
    if (sets := evaluated.get("sets")) and sets["rows"]:
        yield (
            f"Sets of classes: split conformal prediction with scores of {sets['held_out']:,} held-out images, on which their "
            "temperature was not fitted; threshold: Sadinle et al. 2019, adaptive: Romano et al. 2020 without randomisation, "
            f"by class: Vovk 2012; 95% intervals by Wilson 1927, on {sets['images']:,} other images."
        )
    if unknown := evaluated.get("unknown"):
        yield (
            "Unknown images: how much less an embedding points towards its nearest class (Techapanurak et al. 2019), and how "
            f"much shorter it is (Park et al. 2023), than training images; p-values from {unknown['held_out']:,} held-out "
            "images; intervals: Wilson 1927."
        )
    if "ensemble" in metrics:
        yield "Gain of the ensemble: its accuracy less the mean of the networks', 95% interval over images (Student 1908)."
        yield "All numbers are of one ensemble (n = 1)."
        return
    if not metrics["epochs"]:
        yield "All numbers are of one run (n = 1). Without epochs, the seed changes nothing; other splits give other numbers."
        return
    yield (
        "All numbers are of one run (n = 1). Other seeds give others: sprintnet study measures by how much. "
        "sprintnet verify repeats this run."
    )
