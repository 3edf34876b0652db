"""Tars with the bytes that `webdataset.TarWriter` writes, as parts: no copy is made of the audio inside."""

import hashlib
import tarfile
from collections.abc import Iterable
from typing import NamedTuple

Buffer = bytes | memoryview
USER = "blat"
MODE = 0o444


class Tar(NamedTuple):
    """A tar as its parts, one after the other: headers, contents, padding."""

    parts: list[Buffer]
    offsets: list[int]  # of the content of each member, in bytes
    size: int

    def sha256(self) -> str:
        """Return the hash of the tar."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part)
        return digest.hexdigest()


def pack(members: Iterable[tuple[str, Buffer]]) -> Tar:
    """Return a tar of named contents: USTAR, with fixed times and users, so that the same contents give the same bytes."""
    parts: list[Buffer] = []
    offsets, size = [], 0
    for name, content in members:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uname, info.gname = len(content), MODE, USER, USER
        header, padding = info.tobuf(tarfile.USTAR_FORMAT), bytes(-len(content) % tarfile.BLOCKSIZE)
        parts += [header, content, padding]
        offsets.append(size + len(header))
        size += len(header) + len(content) + len(padding)
    end = 2 * tarfile.BLOCKSIZE
    end += -(size + end) % tarfile.RECORDSIZE
    return Tar([*parts, bytes(end)], offsets, size + end)
