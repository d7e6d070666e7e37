"""Requests that wait at the same time are answered together, in one thread, first come first served."""

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprintnet.data.images import MAX_PIXELS, read_image
from sprintnet.deploy.predictor import BATCH, Predictions, Predictor
from sprintnet.deploy.serve.limits import BUSY, Refused
from sprintnet.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP")
LARGE = 512 * 512
"""Images of more pixels are answered one by one, so that never many of them are in memory."""


@dataclass(frozen=True)
class Upload:
    """An image as it was sent; `name` is what messages call it."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Answer:
    """What the network says about one image: probabilities (K,), maps (K, h, w)."""

    probabilities: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class _Job:
    uploads: Sequence[Upload]
    answers: "asyncio.Future[list[Answer]]"


class Batcher:
    """Predictions uploads by a predictor while `work` runs; at most `waiting` requests wait.

    A batch is whatever has come while the last one was answered: nobody waits for others who may never come.
    """

    def __init__(self, predictor: Predictor, waiting: int):
        self.predictor = predictor
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(waiting)
        self._thread = ThreadPoolExecutor(1, "answering")

    async def answer(self, uploads: Sequence[Upload]) -> list[Answer]:
        """Returns an answer an upload; raises Refused when too many wait, DataError for an upload that is no image."""
        job = _Job(uploads, asyncio.get_running_loop().create_future())
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise Refused(503, "busy", BUSY) from None
        return await job.answers

    async def work(self) -> None:
        """Predictions until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            jobs = [await self._jobs.get()]
            while not self._jobs.empty() and sum(len(job.uploads) for job in jobs) < BATCH:
                jobs.append(self._jobs.get_nowait())
            results = await loop.run_in_executor(self._thread, self._answer, [job.uploads for job in jobs])
            for job, result in zip(jobs, results, strict=True):
                if job.answers.done():
                    continue
                if isinstance(result, Exception):
                    job.answers.set_exception(result)
                else:
                    job.answers.set_result(result)

    def _answer(self, requests: Sequence[Sequence[Upload]]) -> list[list[Answer] | Exception]:
        """Returns, for each request, its answers or what went wrong with it alone."""
        found: list[list[Answer | npt.NDArray[np.uint8]] | Exception] = []
        for uploads in requests:
            try:
                found.append(self._read(uploads))
            except Exception as error:
                found.append(error)
        small = [image for images in found if isinstance(images, list) for image in images if not isinstance(image, Answer)]
        try:
            answers = iter(_split(self.predictor(small)))
        except Exception as error:
            return [error for _ in requests]
        return [
            images
            if isinstance(images, Exception)
            else [image if isinstance(image, Answer) else next(answers) for image in images]
            for images in found
        ]

    def _read(self, uploads: Sequence[Upload]) -> list[Answer | npt.NDArray[np.uint8]]:
        """Returns the pixels of each upload, or the answer already where they are many."""
        read: list[Answer | npt.NDArray[np.uint8]] = []
        pixels = 0
        for upload in uploads:
            image = read_image(io.BytesIO(upload.content), upload.name, self.predictor.image_shape[2], FORMATS)
            area = image.shape[0] * image.shape[1]
            pixels += area
            if pixels > MAX_PIXELS:
                raise DataError(
                    f"{upload.name}: with it, more than {MAX_PIXELS // 10**6} million pixels in a request; send fewer at once"
                )
            read.append(image if area <= LARGE else _split(self.predictor([image]))[0])
        return read


def _split(answers: Predictions) -> list[Answer]:
    maps = [None] * len(answers.probabilities) if answers.maps is None else answers.maps
    return [Answer(*pair) for pair in zip(answers.probabilities, maps, strict=True)]
