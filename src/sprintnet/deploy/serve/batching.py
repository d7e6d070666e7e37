"""Dynamic batching: requests that wait at the same time are predicted together, in one thread, first come first served."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sprintnet.data.images import MAX_PIXELS, read_image
from sprintnet.deploy.predictor import BATCH, Pixels, Predictions, Predictor
from sprintnet.deploy.serve.limits import Busy
from sprintnet.errors import DataError

UPLOAD_FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class Upload:
    """An encoded image and the name that messages call it."""

    name: str
    content: bytes


@dataclass(frozen=True)
class _Job:
    uploads: Sequence[Upload]
    predictions: "asyncio.Future[Predictions]"


class Batcher:
    """Predicts uploads while `work` runs; at most `max_queued` requests wait.

    A batch is whatever arrived while the last one was predicted: no request waits for others that may never come.
    """

    def __init__(self, predictor: Predictor, max_queued: int):
        self.predictor = predictor
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(max_queued)
        self._thread = ThreadPoolExecutor(1, "predicting")

    async def predict(self, uploads: Sequence[Upload]) -> Predictions:
        """Returns the predictions for a request; raises Busy if too many wait, DataError if an upload is no image."""
        job = _Job(uploads, asyncio.get_running_loop().create_future())
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise Busy from None
        return await job.predictions

    async def work(self) -> None:
        """Predicts until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            jobs = [await self._jobs.get()]
            while not self._jobs.empty() and sum(len(job.uploads) for job in jobs) < BATCH:
                jobs.append(self._jobs.get_nowait())
            results = await loop.run_in_executor(self._thread, self._predict, [job.uploads for job in jobs])
            for job, result in zip(jobs, results, strict=True):
                if job.predictions.done():
                    continue
                if isinstance(result, Exception):
                    job.predictions.set_exception(result)
                else:
                    job.predictions.set_result(result)

    def _predict(self, requests: Sequence[Sequence[Upload]]) -> list[Predictions | Exception]:
        """Returns the predictions for each request, or the error that it caused."""
        errors: dict[int, Exception] = {}
        owners: list[int] = []  # the request of each image

        def images() -> Iterator[Pixels]:
            for number, uploads in enumerate(requests):
                try:
                    for image in self._read(uploads):
                        owners.append(number)
                        yield image
                except Exception as error:
                    errors[number] = error

        try:
            predictions = self.predictor(images())
        except Exception as error:
            return [error] * len(requests)
        return [errors.get(number) or predictions[np.array(owners, int) == number] for number in range(len(requests))]

    def _read(self, uploads: Sequence[Upload]) -> Iterator[Pixels]:
        pixels = 0
        for upload in uploads:
            image = read_image(
                io.BytesIO(upload.content), upload.name, self.predictor.preprocessing.image_shape[2], UPLOAD_FORMATS
            )
            pixels += image.shape[0] * image.shape[1]
            if pixels > MAX_PIXELS:
                limit = f"{MAX_PIXELS // 10**6} million pixels in one request"
                raise DataError(f"{upload.name}: more than {limit}; send fewer or smaller images")
            yield image
