"""Reads the images of a part: one after the other, or in one pass where several lie in one video, archive or table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

from dfad_bench.prepare.decode import DecodedImage, EncodedImage, SkippedInput, read_header
from dfad_bench.types import Payload, RawImage

UNREADABLE = "unreadable"
"""The reason of a skip that may pass: the disk or the permissions refused the file, not its contents."""

Opened = EncodedImage | DecodedImage | SkippedInput
"""An image file with its header read, a decoded frame of a video, or why there is neither."""


class StreamedPayload(Payload, Protocol):
    """A payload that shares a container with others, so that they are read in one pass when they follow each other."""

    @property
    def container(self) -> str:
        """Name what is opened once: the same text for every payload that lies in it."""
        ...

    @staticmethod
    def stream(payloads: Sequence[Any]) -> Iterator[bytes | DecodedImage | SkippedInput]:
        """Yield for each payload in turn the encoded file or the decoded frame, or a SkippedInput as a value."""
        ...


def open_images(images: Sequence[RawImage]) -> Iterator[tuple[RawImage, Opened]]:
    """Yield every image with what came of reading it, in order; of a container one image is held at a time."""
    for container, group in groupby(images, key=_container):
        together = list(group)
        if container is None:
            yield from ((image, open_payload(image.payload)) for image in together)
            continue
        payloads: list[StreamedPayload] = [image.payload for image in together]  # type: ignore[misc]
        items = payloads[0].stream(payloads)
        yield from ((image, _opened(item)) for image, item in zip(together, items, strict=True))


def _container(image: RawImage) -> tuple[type, str] | None:
    name = getattr(image.payload, "container", None)
    return None if name is None else (type(image.payload), name)


def open_payload(payload: Payload) -> Opened:
    """Read one payload by itself."""
    try:
        return read_header(payload.read())
    except SkippedInput as skipped:
        return skipped
    except FileNotFoundError as error:
        return SkippedInput("missing_file", str(error))
    except OSError as error:
        return SkippedInput(UNREADABLE, str(error))


def _opened(item: bytes | DecodedImage | SkippedInput) -> Opened:
    if not isinstance(item, bytes):
        return item
    try:
        return read_header(item)
    except SkippedInput as skipped:
        return skipped
