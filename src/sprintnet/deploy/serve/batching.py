"""Dynamic batching: requests that wait at the same time are predicted together, first come first served."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sprintnet.data.images import MAX_PIXELS, read_image
from sprintnet.deploy.predictor import BATCH, Pixels, Predictions, Predictor
from sprintnet.deploy.serve.limits import BUSY, Refused
from sprintnet.errors import DataError

UPLOAD_FORMATS = ("JPEG", "PNG", "WEBP")


class Upload(NamedTuple):
    """An encoded image and its name in messages."""

    name: str
    content: bytes


class Batcher:
    """Predicts uploads while `work` runs; at most `max_queued` requests wait. A batch is what arrived while the
    last one was predicted: no request waits for others that may never come."""

    def __init__(self, predictor: Predictor, max_queued: int):
        self.predictor = predictor
        self._jobs: asyncio.Queue[tuple[Sequence[Upload], asyncio.Future[Predictions]]] = asyncio.Queue(max_queued)

    async def predict(self, uploads: Sequence[Upload]) -> Predictions:
        """Returns the predictions for a request; raises Refused if too many wait, DataError if an upload is no image."""
        future: asyncio.Future[Predictions] = asyncio.get_running_loop().create_future()
        try:
            self._jobs.put_nowait((uploads, future))
        except asyncio.QueueFull:
            raise Refused(*BUSY) from None
        return await future

    async def work(self) -> None:
        """Predicts until it is cancelled."""
        while True:
            jobs = [await self._jobs.get()]
            while not self._jobs.empty() and sum(len(uploads) for uploads, _ in jobs) < BATCH:
                jobs.append(self._jobs.get_nowait())
            results = await asyncio.to_thread(self._predict, [uploads for uploads, _ in jobs])
            for (_, future), result in zip(jobs, results, strict=True):
                if future.done():  # the client has disconnected
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

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
            channels = self.predictor.preprocessing.image_shape[2]
            image = read_image(io.BytesIO(upload.content), upload.name, channels, UPLOAD_FORMATS)
            pixels += image.shape[0] * image.shape[1]
            if pixels > MAX_PIXELS:
                limit = f"{MAX_PIXELS // 10**6} million pixels in one request"
                raise DataError(f"{upload.name}: more than {limit}; send fewer or smaller images")
            yield image
