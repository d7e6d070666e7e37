"""Choices of implementations are forgotten between tests, which change what is available."""

from collections.abc import Iterator

import pytest

from sprintnet.kernels import dispatch


@pytest.fixture(autouse=True)
def no_remembered_choice() -> Iterator[None]:
    """Clears the dispatch caches before and after a test."""
    for choose in (dispatch.choose_conv3x3, dispatch.can_fuse_conv_pool):
        choose.cache_clear()
    yield
    for choose in (dispatch.choose_conv3x3, dispatch.can_fuse_conv_pool):
        choose.cache_clear()
