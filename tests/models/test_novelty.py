"""Novelty: against its formula in NumPy, and what makes an image unlike the training images."""

import numpy as np
import torch

from sprintnet.models.novelty import Novelty

CLASSES, FEATURES = 3, 5


def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (N, C) around a direction of each class, and the classes (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    centres = 3 * torch.eye(CLASSES, FEATURES)
    return centres[labels] + torch.randn(count, FEATURES, generator=generator), labels


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return labels[:, None] == torch.arange(CLASSES)


def fitted(embeddings: torch.Tensor, membership: torch.Tensor) -> Novelty:
    novelty = Novelty(CLASSES, FEATURES)
    novelty.fit(embeddings, membership)
    return novelty


def test_it_is_the_unusual_part_of_direction_and_length() -> None:
    embeddings, labels = drawn(300)
    values = embeddings.double().numpy()
    lengths = np.linalg.norm(values, axis=1)
    directions = values / lengths[:, None]
    means = np.stack([directions[labels.numpy() == label].mean(axis=0) for label in range(CLASSES)])
    cosines = (directions @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).max(axis=1)
    z = [-(measure - measure.mean()) / measure.std() for measure in (cosines, np.log(lengths))]
    expected = sum(np.log1p(np.exp(each)) for each in z)
    np.testing.assert_allclose(fitted(embeddings, one_hot(labels))(embeddings).numpy(), expected, rtol=1e-4)


def test_the_scale_of_all_embeddings_does_not_matter() -> None:
    embeddings, labels = drawn(60)
    novelty, larger = fitted(embeddings, one_hot(labels)), fitted(7 * embeddings, one_hot(labels))
    torch.testing.assert_close(larger(7 * embeddings), novelty(embeddings), rtol=1e-4, atol=1e-4)


def test_what_no_class_is_near_is_the_most_novel_and_so_is_what_excites_nothing() -> None:
    embeddings, labels = drawn(300)
    novelty = fitted(embeddings, one_hot(labels))
    usual = novelty(embeddings).quantile(0.95)
    away = torch.zeros(1, FEATURES)
    away[0, FEATURES - 1] = -3
    assert novelty(away) > usual
    assert novelty(0.05 * embeddings[:1]) > usual
    assert novelty(20 * embeddings).mean() < novelty(embeddings).mean()  # longer is not novel
    assert novelty(20 * away) > usual  # and does not excuse another direction


def test_an_image_of_several_classes_counts_for_each() -> None:
    embeddings, labels = drawn(90)
    several = one_hot(labels) | one_hot((labels + 1) % CLASSES)
    once = fitted(torch.cat([embeddings, embeddings]), torch.cat([one_hot(labels), one_hot((labels + 1) % CLASSES)]))
    torch.testing.assert_close(fitted(embeddings, several)(embeddings), once(embeddings), rtol=1e-4, atol=1e-4)


def test_few_images_or_equal_ones_give_a_finite_score() -> None:
    embeddings, labels = drawn(4)
    assert fitted(embeddings, one_hot(labels))(torch.randn(10, FEATURES)).isfinite().all()
    alone = fitted(embeddings[:1].repeat(6, 1), one_hot(torch.zeros(6, dtype=torch.long)))  # two classes without images
    assert alone(torch.cat([embeddings, torch.zeros(1, FEATURES)])).isfinite().all()
    assert alone(embeddings[:1]) < alone(embeddings[1:2])
