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
from sprintnet.deploy.predictions import Predictions
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.serve.batching import Batcher, Decoder, Upload
from sprintnet.deploy.serve.limits import Limits, Refused
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
        decoder, batcher = Decoder(predictor, Limits()), Batcher(predictor, max_queued)
        decoded = await asyncio.gather(*map(decoder.decode, requests), return_exceptions=True)

        async def predict(images: list[np.ndarray] | BaseException) -> Predictions:
            if isinstance(images, BaseException):
                raise images
            return await batcher.predict(images)

        waiting = [asyncio.create_task(predict(images)) for images in decoded]
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


def test_a_model_that_fails_answers_every_request_and_the_next(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail_once(images: list[np.ndarray], **_: object) -> Predictions:
        calls.append(images)
        if len(calls) == 1:
            raise MemoryError
        return Predictor.__call__(predictor, images)

    async def main() -> tuple[list[object], Predictions, bool]:
        batcher = Batcher(fail_once, 64)  # type: ignore[arg-type]
        waiting = [asyncio.create_task(batcher.predict([predictor.read(file)])) for file in FILES[:2]]
        await asyncio.sleep(0)
        work = asyncio.create_task(batcher.work())
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        found, is_alive = await batcher.predict([predictor.read(FILES[2])]), batcher.is_alive
        left = asyncio.create_task(batcher.predict([predictor.read(FILES[0])]))
        work.cancel()
        with pytest.raises(Refused, match="no longer predicts"):
            await left
        assert not batcher.is_alive
        with pytest.raises(Refused, match="no longer predicts"):
            await batcher.predict([predictor.read(FILES[0])])
        return list(failed), found, is_alive

    failed, found, is_alive = run(main())
    assert [type(error) for error in failed] == [MemoryError] * 2
    assert len(found) == 1
    assert is_alive


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
    large = Upload("large.png", encoded(Image.fromarray(np.zeros((3500, 3500), np.uint8))))
    (refused,) = predict_together(predictor, [[large, large]])
    assert isinstance(refused, DataError)
    assert "more than 16 million pixels in one request" in str(refused)


def test_a_cancelled_request_harms_no_other(predictor: Predictor) -> None:
    async def main() -> Predictions:
        batcher = Batcher(predictor, 64)
        cancelled, kept = (asyncio.create_task(batcher.predict([predictor.read(FILES[0])])) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        work = asyncio.create_task(batcher.work())
        found = await kept
        work.cancel()
        return found

    assert len(run(main())) == 1
