from __future__ import annotations

import asyncio
import threading

import pytest

from facekit.serving.batching import Batcher, Upload
from facekit.serving.settings import Limits


class Analysis:
    """Answers with each picture's name, and waits where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, uploads):
        self.batches.append([upload.name for upload in uploads])
        assert self.go.wait(30)
        if any(upload.data == b"poison" for upload in uploads):
            raise MemoryError("poison")
        return [{"image": upload.name} for upload in uploads]


@pytest.fixture
def analysis():
    return Analysis()


def batcher_of(analysis, **limits):
    return Batcher(analysis, Limits(**limits))


def upload(name, data=b"", pixels=1):
    return Upload(name, data, pixels)


def test_requests_that_come_together_share_a_batch_and_get_their_own_answers(analysis):
    batcher = batcher_of(analysis, batch_seconds=0.5, batch=8)

    async def several():
        return await asyncio.gather(*(batcher.submit([upload(name)]) for name in "abcdefgh"))

    answers = asyncio.run(several())
    batcher.close()
    assert [answer[0]["image"] for answer in answers] == [*"abcdefgh"]
    assert analysis.batches == [[*"abcdefgh"]]


def test_batches_keep_to_the_limits_of_pictures_and_pixels(analysis):
    batcher = batcher_of(analysis, batch=3, batch_pixels=10)
    sizes = [4, 4, 4, 1, 1, 1, 99, 1]
    uploads = [upload(str(place), pixels=size) for place, size in enumerate(sizes)]
    answers = asyncio.run(batcher.submit(uploads))
    batcher.close()
    assert [answer["image"] for answer in answers] == [str(place) for place in range(8)]
    assert analysis.batches == [["0", "1"], ["2", "3", "4"], ["5"], ["6"], ["7"]]


def test_a_picture_that_fails_spoils_no_other(analysis, caplog):
    batcher = batcher_of(analysis)

    async def several():
        poison = upload("bad", b"poison")
        return await asyncio.gather(
            *(batcher.submit([one]) for one in (upload("a"), poison, upload("b"))), return_exceptions=True
        )

    first, second, third = asyncio.run(several())
    batcher.close()
    assert [first[0]["image"], third[0]["image"]] == ["a", "b"]
    assert isinstance(second, MemoryError)
    assert "each is tried alone" in caplog.text


def test_nothing_is_begun_for_a_caller_that_left(analysis):
    batcher = batcher_of(analysis)

    async def leave():
        analysis.go.clear()
        first = asyncio.create_task(batcher.submit([upload("a")]))
        while not analysis.batches:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(batcher.submit([upload("b")]))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        analysis.go.set()
        return await first

    assert asyncio.run(leave()) == [{"image": "a"}]
    batcher.close()
    assert analysis.batches == [["a"]]


def test_closing_finishes_what_is_waiting(analysis):
    batcher = batcher_of(analysis, batch=1)

    async def close_early():
        waiting = asyncio.create_task(batcher.submit([upload(name) for name in "abc"]))
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        return await waiting

    assert len(asyncio.run(close_early())) == 3
