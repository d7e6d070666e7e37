"""Dynamic batching: requests that wait together, each with its own predictions or error."""

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from deploy.client import FILES, encoded
from sprintnet.deploy.predictor import Predictions, Predictor
from sprintnet.deploy.serve.batching import Batcher, Upload
from sprintnet.deploy.serve.limits import Refused
from sprintnet.errors import DataError

Result = TypeVar("Result")
UPLOADS = [Upload(file.name, file.read_bytes()) for file in FILES]
BAD = Upload("bad.png", b"no image")


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Returns the result of a coroutine, run in a thread of its own: a browser of other tests has a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, main).result()


def predict_together(
    predictor: Predictor, requests: Sequence[Sequence[Upload]], max_queued: int = 64
) -> list[Predictions | BaseException]:
    """Returns the result of each request, all of which wait before the work begins."""

    async def main() -> list[Predictions | BaseException]:
        batcher = Batcher(predictor, max_queued)
        waiting = [asyncio.create_task(batcher.predict(uploads)) for uploads in requests]
        await asyncio.sleep(0)  # each is in the queue, or refused
        work = asyncio.create_task(batcher.work())
        results = await asyncio.gather(*waiting, return_exceptions=True)
        work.cancel()
        return results

    return run(main())


def test_each_request_gets_the_predictions_of_its_images(predictor: Predictor) -> None:
    requests = [UPLOADS[:1], UPLOADS[1:4], UPLOADS[4:6]]
    for found, files in zip(predict_together(predictor, requests), (FILES[:1], FILES[1:4], FILES[4:6]), strict=True):
        assert isinstance(found, Predictions)
        assert found.probabilities == pytest.approx(predictor(files).probabilities, abs=1e-5)


def test_an_unreadable_image_fails_its_own_request_alone(predictor: Predictor) -> None:
    before, failed, after = predict_together(predictor, [UPLOADS[:2], [UPLOADS[2], BAD], UPLOADS[3:4]])
    assert isinstance(failed, DataError)
    assert str(failed).startswith("bad.png: cannot be read as an image")
    for found, files in ((before, FILES[:2]), (after, FILES[3:4])):
        assert isinstance(found, Predictions)
        assert found.probabilities == pytest.approx(predictor(files).probabilities, abs=1e-5)


def test_requests_beyond_the_queue_are_refused(predictor: Predictor) -> None:
    results = predict_together(predictor, [UPLOADS[:1]] * 5, max_queued=2)
    assert [isinstance(result, Predictions) for result in results] == [True, True, False, False, False]
    assert {result.code for result in results if isinstance(result, Refused)} == {"busy"}


def test_many_images_wait_for_a_second_batch(predictor: Predictor) -> None:
    results = predict_together(predictor, [UPLOADS[:10]] * 9)  # 90 images; a batch takes no more requests from 64 on
    for found in results:
        assert isinstance(found, Predictions)
        assert found.probabilities == pytest.approx(predictor(FILES[:10]).probabilities, abs=1e-5)


def test_a_request_has_a_limit_of_pixels(predictor: Predictor) -> None:
    large = Upload("large.png", encoded(Image.fromarray(np.zeros((6000, 6000), np.uint8))))
    (refused,) = predict_together(predictor, [[large, large]])
    assert isinstance(refused, DataError)
    assert "more than 64 million pixels in one request" in str(refused)


def test_a_cancelled_request_harms_no_other(predictor: Predictor) -> None:
    async def main() -> Predictions:
        batcher = Batcher(predictor, 64)
        cancelled, kept = (asyncio.create_task(batcher.predict(UPLOADS[:1])) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        work = asyncio.create_task(batcher.work())
        found = await kept
        work.cancel()
        return found

    assert len(run(main())) == 1
