"""Uploads become predictions: decoded in two lanes, then predicted in batches of what waits, first come first served."""

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import numpy as np

from sprintnet.data.image_files import open_image
from sprintnet.data.images import read_image
from sprintnet.deploy.predictions import Predictions
from sprintnet.deploy.predictor import BATCH, Pixels, Predictor
from sprintnet.deploy.serve.limits import BUSY, Limits, Refused
from sprintnet.errors import DataError

UPLOAD_FORMATS = ("JPEG", "PNG", "WEBP")
SMALL_DECODERS = 2
MAX_BATCH_SECONDS = 60.0  # then the server counts as stuck
STUCK = (503, "stuck", "the model no longer predicts; restart the server")


class Upload(NamedTuple):
    """An encoded image and its name in messages."""

    name: str
    content: bytes


class Decoder:
    """Decodes uploads in the model's shape. Requests with large images wait for each other and not for long: a few bytes can
    claim millions of pixels, and the others must not wait for them."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._small, self._large = asyncio.Semaphore(SMALL_DECODERS), asyncio.Semaphore(1)
        self._large_waiting = 0

    async def decode(self, uploads: Sequence[Upload]) -> list[Pixels]:
        """Returns the pixels of each upload; raises Refused if too many wait, DataError if an upload is no image."""
        is_small = sum(len(upload.content) for upload in uploads) <= self.limits.small_bytes
        if is_small:
            async with self._small:
                if await asyncio.to_thread(self._area, uploads) <= self.limits.small_pixels:
                    return await asyncio.to_thread(self._read, uploads)
        async with self._turn():
            if not is_small:  # else their pixels have been counted
                await asyncio.to_thread(self._area, uploads)
            return await asyncio.to_thread(self._read, uploads)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._large_waiting >= self.limits.large_requests:
            raise Refused(*BUSY)
        self._large_waiting += 1
        try:
            async with self._large:
                yield
        finally:
            self._large_waiting -= 1

    def _area(self, uploads: Sequence[Upload]) -> int:
        """Returns the number of pixels of all uploads, from their headers; an upload that is no image has none."""
        area = 0
        for upload in uploads:
            with contextlib.suppress(Exception):  # decoding finds the cause
                width, height = open_image(io.BytesIO(upload.content), UPLOAD_FORMATS).size
                area += width * height
            if area > self.limits.pixels:
                limit = f"{self.limits.pixels / 10**6:g} million pixels in one request"
                raise DataError(f"{upload.name}: more than {limit}; send fewer or smaller images")
        return area

    def _read(self, uploads: Sequence[Upload]) -> list[Pixels]:
        (height, width, channels), policy = self.predictor.preprocessing.image_shape, self.predictor.preprocessing.resize
        settings = channels, UPLOAD_FORMATS, (height, width), policy, self.limits.pixels
        return [read_image(io.BytesIO(upload.content), upload.name, *settings) for upload in uploads]


class Batcher:
    """Predicts images while `work` runs; at most `max_queued` requests wait. A batch is what arrived while the last one was
    predicted: no request waits for others that may never come."""

    def __init__(self, predictor: Predictor, max_queued: int):
        self.predictor = predictor
        self._jobs: asyncio.Queue[tuple[Sequence[Pixels], asyncio.Future[Predictions]]] = asyncio.Queue(max_queued)
        self._busy_since: float | None = None
        self.has_ended = False

    @property
    def is_alive(self) -> bool:
        """Whether requests are predicted: `work` runs, and no batch takes longer than MAX_BATCH_SECONDS."""
        is_stuck = self._busy_since is not None and time.monotonic() - self._busy_since > MAX_BATCH_SECONDS
        return not (self.has_ended or is_stuck)

    async def predict(self, images: Sequence[Pixels]) -> Predictions:
        """Returns the predictions for a request; raises Refused if too many wait, or none are predicted any more."""
        if not self.is_alive:
            raise Refused(*STUCK)
        future: asyncio.Future[Predictions] = asyncio.get_running_loop().create_future()
        try:
            self._jobs.put_nowait((images, future))
        except asyncio.QueueFull:
            raise Refused(*BUSY) from None
        return await future

    async def work(self) -> None:
        """Predicts until it is cancelled."""
        try:
            while True:
                jobs = [await self._jobs.get()]
                while not self._jobs.empty() and sum(len(images) for images, _ in jobs) < BATCH:
                    jobs.append(self._jobs.get_nowait())
                self._busy_since = time.monotonic()
                await self._answer(jobs)
                self._busy_since = None
        finally:
            self.has_ended = True
            while not self._jobs.empty():
                if not (future := self._jobs.get_nowait()[1]).done():
                    future.set_exception(Refused(*STUCK))

    async def _answer(self, jobs: Sequence[tuple[Sequence[Pixels], "asyncio.Future[Predictions]"]]) -> None:
        """Gives each request its predictions, or the error of the batch."""
        owners = np.repeat(np.arange(len(jobs)), [len(images) for images, _ in jobs])
        try:
            predictions = await asyncio.to_thread(self.predictor, [image for images, _ in jobs for image in images])
        except Exception as error:
            for _, future in jobs:
                if not future.done():
                    future.set_exception(error)
            return
        for number, (_, future) in enumerate(jobs):
            if not future.done():  # else the client has disconnected
                future.set_result(predictions[owners == number])
