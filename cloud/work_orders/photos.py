"""Photos of work: nothing that somebody sends is ever kept or shown as it came.

Every picture is decoded and written anew, as JPEG without metadata (a phone writes its place and owner into it). What
it claims to be is judged by its bytes, its size in pixels by its header, before anything is unpacked.
"""

import hashlib
import io
import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

BYTES_MAX: Final = 8_000_000
PIXELS_MAX: Final = 40_000_000
"""Beyond it a file is a bomb rather than a photo; 40 million of them are 120 MB of memory."""
SIDE_MAX: Final = 2048
SMALL_SIDE_MAX: Final = 320
QUALITY: Final = 82
FORMATS: Final = ("JPEG", "PNG", "WEBP")
PHOTOS_PER_ORDER_MAX: Final = 20


class PhotoError(ValueError):
    """Not a photo that we take; `code` is for programs, the text for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture as we keep it."""

    hash: str
    width: int
    height: int
    large: bytes
    small: bytes


def remade(data: bytes) -> Photo:
    """Decode, turn upright, shrink to `SIDE_MAX`, encode anew. Slow: for a thread. Raises PhotoError."""
    from PIL import Image, ImageOps  # noqa: PLC0415  # 5 MB that only who sends photos shall pay

    if len(data) > BYTES_MAX:
        raise PhotoError("photo_too_large", f"Send a photo of at most {BYTES_MAX // 1_000_000} MB.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > PIXELS_MAX:
                    raise PhotoError("photo_too_many_pixels", f"At most {PIXELS_MAX // 1_000_000} million pixels.")
                # Phones hang a preview or a brightness map behind the picture (MPO); the first one is the photo.
                if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":
                    raise PhotoError("photo_not_still", "Send a still picture.")
                opened.draft("RGB", (SIDE_MAX, SIDE_MAX))
                picture = ImageOps.exif_transpose(opened).convert("RGB")
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("photo_too_many_pixels", f"At most {PIXELS_MAX // 1_000_000} million pixels.") from error
    except Exception as error:  # whatever a broken file makes of the decoder: it is the file's fault
        raise PhotoError("photo_unreadable", "Send a JPEG, PNG or WebP picture.") from error
    picture.thumbnail((SIDE_MAX, SIDE_MAX))
    large = _encoded(picture)
    width, height = picture.size
    picture.thumbnail((SMALL_SIDE_MAX, SMALL_SIDE_MAX))
    return Photo(hashlib.sha256(large).hexdigest(), width, height, large, _encoded(picture))


def _encoded(picture: "Image") -> bytes:
    from PIL.Image import new  # noqa: PLC0415  # as above

    clean = new("RGB", picture.size)
    clean.paste(picture)
    written = io.BytesIO()
    clean.save(written, "JPEG", quality=QUALITY, optimize=True)
    return written.getvalue()


class PhotoStore:
    """Pictures under their hash, in two sizes. A file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str, *, small: bool) -> Path:
        """Where a picture lies. Raises ValueError for what is no hash."""
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("not a hash")
        return self._folder / digest[:2] / f"{digest}{'-small' if small else ''}.jpg"

    def put(self, photo: Photo) -> None:
        """Store durably; the same picture again changes nothing."""
        for small, data in ((True, photo.small), (False, photo.large)):
            target = self.path(photo.hash, small=small)
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}")
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)

    def get(self, digest: str, *, small: bool) -> bytes:
        """The picture. Raises FileNotFoundError."""
        return self.path(digest, small=small).read_bytes()
