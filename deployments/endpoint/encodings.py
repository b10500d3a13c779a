"""Compressed request bodies, as some HTTP libraries send them: `content-encoding: gzip` or `deflate`."""

import zlib
from collections.abc import Iterator

from router.errors import BadRequest, UnknownEncoding

KNOWN = "gzip, deflate, identity"
GZIP = 16 + zlib.MAX_WBITS  # zlib's name for gzip's framing
STEP = 65_536  # bytes that are unpacked at a time, so that the limit of a body ends a bomb early


class Decoder:
    """Unpacks a body piece by piece. coding: the header `content-encoding`, empty for none. Raises UnknownEncoding."""

    def __init__(self, coding: str) -> None:
        name = coding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise UnknownEncoding(coding, KNOWN)
        self.name, self.packed = name, name not in ("", "identity")
        self.unpacking = zlib.decompressobj(GZIP) if name.endswith("gzip") else None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The unpacked bytes of a piece, at most STEP at a time. Raises BadRequest."""
        if not self.packed:
            yield piece
            return
        try:
            while piece:
                self.unpacking = self.unpacking or zlib.decompressobj(deflate_bits(piece))
                if self.unpacking.eof:  # gzip files may follow each other
                    self.unpacking = zlib.decompressobj(GZIP)
                yield self.unpacking.decompress(piece, STEP)
                piece = self.unpacking.unconsumed_tail or self.unpacking.unused_data
        except zlib.error:
            raise self.bad() from None

    def end(self) -> None:
        """Raises BadRequest where the body was cut off."""
        if self.packed and (self.unpacking is None or not self.unpacking.eof):
            raise self.bad()

    def bad(self) -> BadRequest:
        return BadRequest(f"the body is not whole {self.name}, though content-encoding says so")


def deflate_bits(start: bytes) -> int:
    """deflate means zlib's framing, but some senders leave that out. start: of the body."""
    framed = start[0] & 0x0F == 8 and (len(start) < 2 or int.from_bytes(start[:2]) % 31 == 0)
    return zlib.MAX_WBITS if framed else -zlib.MAX_WBITS
