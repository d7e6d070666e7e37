"""Novelty: against scipy's Mahalanobis distance, and what it does not depend on."""

import numpy as np
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance

from sprintnet.models.novelty import SHRINKAGE, Novelty

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


def test_it_is_the_distance_of_the_nearest_class() -> None:
    embeddings, labels = drawn(300)
    directions = (embeddings / embeddings.norm(dim=1, keepdim=True)).double().numpy()
    means = np.stack([directions[labels.numpy() == label].mean(axis=0) for label in range(CLASSES)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(directions - means[labels.numpy()]).covariance_
    inverse = np.linalg.inv(covariance + SHRINKAGE * np.trace(covariance) / FEATURES * np.eye(FEATURES))
    expected = [min(mahalanobis(direction, mean, inverse) ** 2 for mean in means) / FEATURES for direction in directions]
    np.testing.assert_allclose(fitted(embeddings, one_hot(labels))(embeddings).numpy(), expected, rtol=1e-4)


def test_the_length_of_an_embedding_does_not_matter() -> None:
    embeddings, labels = drawn(60)
    novelty = fitted(embeddings, one_hot(labels))
    torch.testing.assert_close(novelty(7 * embeddings), novelty(embeddings))
    torch.testing.assert_close(fitted(3 * embeddings, one_hot(labels))(embeddings), novelty(embeddings))


def test_what_no_class_is_near_is_the_most_novel() -> None:
    embeddings, labels = drawn(300)
    novelty = fitted(embeddings, one_hot(labels))
    away = torch.zeros(1, FEATURES)
    away[0, FEATURES - 1] = -1
    assert novelty(away) > novelty(embeddings).quantile(0.95)


def test_an_image_of_several_classes_counts_for_each() -> None:
    embeddings, labels = drawn(90)
    several = one_hot(labels) | one_hot((labels + 1) % CLASSES)
    once = fitted(torch.cat([embeddings, embeddings]), torch.cat([one_hot(labels), one_hot((labels + 1) % CLASSES)]))
    torch.testing.assert_close(fitted(embeddings, several)(embeddings), once(embeddings), rtol=1e-4, atol=1e-4)


def test_few_images_give_a_finite_distance() -> None:
    embeddings, labels = drawn(4)  # fewer than features: some directions have no variance
    assert fitted(embeddings, one_hot(labels))(torch.randn(10, FEATURES)).isfinite().all()
    alone = fitted(embeddings[:3], one_hot(labels[:3]))  # one image a class: no variance at all
    assert alone(embeddings).isfinite().all()
