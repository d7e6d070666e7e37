"""Figures of an evaluation as lines of text: the whole, calibration, classes, confusion; how faithful maps are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.task_scores import CLASS_SCORES, Kind, kind_of, score_texts

MATRIX_CLASSES = 12
"""So many columns fit a terminal."""


def missing_score(row: Mapping[str, Any]) -> str:
    """Returns why a class (of metrics.json) lacks a score."""
    return "no answer" if row["support"] else "no support"


def class_lines(classes: Mapping[str, Mapping[str, Any]], kind: Kind) -> Iterator[str]:
    """Yields the table of classes (metrics.json's): support, scores with their 95 % intervals, then those without."""
    width = max(len("class"), *(len(plain(name)) for name in classes))
    heads = [f"  {name:>9}  {'95 % interval':16}" for name in CLASS_SCORES.values()]
    heads += [f"  {name:>9}" for name in kind.rankings.values()]
    yield f"{'class':{width}}  {'support':>7}{''.join(heads)}".rstrip()
    for name, row in classes.items():
        cells = [
            f"  {row[figure]:9.2%}  {row[f'{figure}_interval'][0]:.2%} to {row[f'{figure}_interval'][1]:.2%}"
            if row[figure] is not None
            else f"  {missing_score(row):>9}{'':18}"
            for figure in CLASS_SCORES
        ]
        cells += [f"  {'undefined' if row[key] is None else f'{row[key]:.2%}':>9}" for key in kind.rankings]
        yield f"{plain(name):{width}}  {row['support']:7,d}{''.join(cells)}".rstrip()


def result_lines(metrics: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yields what a training came to (metrics.json), kept in the folder `place`."""
    for split in ("val", "test"):
        if split in metrics:
            figures = metrics[split]
            right = f"{figures['accuracy']:.2%} of {figures['images']:,} images {kind_of(figures).right}"
            others = [f"{name} {text}" for name, text in score_texts(figures).items()]
            yield f"{split}: {', '.join([right, *others])}, cross-entropy {figures['cross_entropy']:.4f}"
            if "tta" in figures:
                yield f"{split}, {tta_line(figures['tta'])}"
    yield f"trained in {metrics['train_seconds']:.1f} s, {metrics['images_per_second']:.0f} images/s; kept in {place}"


def tta_line(tta: Mapping[str, float]) -> str:
    """Returns what six views came to."""
    least_sure = f"six views for the {tta['fraction']:.0%} least sure"
    return f"{least_sure}: {tta['accuracy']:.2%} right, all answers in {tta['seconds']:.1f} s"


def evaluation_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields the figures of one split (metrics.json's): the whole, calibration, the largest confusions, each class."""
    low, high = figures["accuracy_interval"]
    kind = kind_of(figures)
    yield f"{kind.accuracy:14}  {figures['accuracy']:8.2%}  95 % interval {low:.2%} to {high:.2%}"
    yield from (f"{name:14}  {text:>8}" for name, text in score_texts(figures).items())
    yield f"cross-entropy   {figures['cross_entropy']:8.4f}"
    if "tta" in figures:
        yield tta_line(figures["tta"])
    for key, label in (("calibration", "as trained"), ("calibration_at_temperature", "at its temperature")):
        if found := figures.get(key):
            yield (
                f"calibration {label}: ECE {found['ece']:.2%} over 15 bins of equal width, "
                f"{found['adaptive_ece']:.2%} of equal count, NLL {found['nll']:.4f}, Brier {found['brier']:.4f}"
            )
    yield "  ".join(["answering only the surest:", *(f"{row['coverage']:>7.0%}" for row in figures["coverage"])])
    yield "  ".join(["least confidence answered: ", *(f"{row['confidence']:7.3f}" for row in figures["coverage"])])
    yield "  ".join(["right among these:         ", *(f"{row['accuracy']:7.2%}" for row in figures["coverage"])])
    if figures.get("most_confused"):
        largest = figures["most_confused"][:5]
        pairs = [f"{plain(pair['true'])} for {plain(pair['predicted'])} {pair['images']:,}" for pair in largest]
        yield f"most confused: {', '.join(pairs)}"
    yield from class_lines(figures["classes"], kind)
    if "confusion" in figures and len(figures["classes"]) <= MATRIX_CLASSES:
        yield from confusion_lines(figures["confusion"], list(figures["classes"]))


def confusion_lines(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Iterator[str]:
    """Yields the confusion matrix, row the true class: as images, then as % of the true class."""
    width = max(len(plain(name)) for name in classes)
    for label in ("images", "% of the true class"):
        yield f"confusion, {label} (rows: true, columns: predicted, in the same order)"
        for name, row in zip(classes, confusion, strict=True):
            support = max(sum(row), 1)
            cells = [f"{count:7,d}" if label == "images" else f"{100 * count / support:7.1f}" for count in row]
            yield f"{plain(name):{width}}{''.join(cells)}"


def faithfulness_lines(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yields deletion (low is good) and insertion (high is good) of each kind of map."""
    width = max(map(len, figures))
    yield f"{'map':{width}}  deletion  insertion   mean probability of the class while pixels go or come in the map's order"
    for name, found in figures.items():
        yield f"{name:{width}}  {found['deletion']:8.1%}  {found['insertion']:9.1%}"
