"""One listed clip: where its bytes lie, what it is called, and what is known of it."""

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.audio.span import Span
from pipeline.sources import audioset

SUFFIXES = (  # what libsndfile reads, then what ffmpeg does
    ".flac", ".wav", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".w64", ".caf",
    ".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mka", ".wma", ".amr",
)  # fmt: skip
MAX_KEY = 90  # bytes; a longer member name does not fit a plain USTAR header
ARCHIVES = {  # archive -> how ids of it look in free text such as a URL
    "youtube": re.compile(
        r"(?:youtube|youtu\.be)\S*?[ :=/]+(?:start )?(?:watch\?v=)?([\w-]{11})(?![\w-])", re.IGNORECASE
    ),
    "freesound": re.compile(r"freesound(?:\.org\S*?/sounds?/|[ :#]+)(\d+)(?![\w.])", re.IGNORECASE),
}


class AudioLocation(NamedTuple):
    """All that is needed to read the audio of a clip. The fields are as in `Clip`."""

    uri: str
    offset: int = -1
    size: int = -1
    fault: str = ""
    cut_start_s: float = 0.0
    cut_end_s: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether the file is the clip."""
        return Span(self.cut_start_s, self.cut_end_s).whole


class Event(NamedTuple):
    """A strong label: when a sound of a clip is there."""

    label: str  # display name
    start_s: float  # from the start of the clip
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One listed clip. Its audio may be missing or broken, which shows when it is read."""

    key: str  # unique, no dots
    uri: str  # of the file that holds the audio
    source_id: str  # the id as the source wrote it
    offset: int = -1  # of the audio in a tar, in bytes, or its row in a Parquet file; -1: the file is the clip
    size: int = -1  # of the audio in a tar, in bytes; -1 elsewhere
    fault: str = ""  # what listing found wrong, as `reason: detail`; such a clip fails when it is read
    recording_id: str = ""  # `youtube:<id>` or `freesound:<id>`, where it is known
    start_s: float = 0.0  # position in the original recording, as listed
    end_s: float = 0.0
    cut_start_s: float = 0.0  # the part of the file that is the clip; 0 and 0: the file holds just the clip
    cut_end_s: float = 0.0  # 0: to the end of the file
    tags: tuple[str, ...] = ()  # label display names
    mids: tuple[str, ...] = ()  # AudioSet machine ids of the tags, where there are any
    captions: tuple[str, ...] = ()  # human captions
    fold: str = ""
    note: str = ""  # for the ledger: a peculiarity of how the clip was listed
    events: tuple[Event, ...] = ()  # strong labels, where the source has them

    @property
    def location(self) -> AudioLocation:
        """Return where the audio lies."""
        return AudioLocation(self.uri, self.offset, self.size, self.fault, self.cut_start_s, self.cut_end_s)


def key_of(name: str) -> str:
    """Make a key of a file's relative path: `audio/dog/1.wav` gives `dog_1`. A key that is too long ends in its hash."""
    key = audioset.slug(stem(name.removeprefix("audio/")))
    return key if len(key.encode()) <= MAX_KEY else _ending_in_hash(key, key)


def disambiguated_key(name: str) -> str:
    """Make a key of a path whose plain key is also that of another path of its table: it ends in the hash of the name."""
    plain = stem(name.removeprefix("audio/"))
    key = key_of(name)
    return key if key == plain else _ending_in_hash(key, plain)


def _ending_in_hash(key: str, hashed: str) -> str:
    return key.encode()[: MAX_KEY - 9].decode(errors="ignore") + "_" + hashlib.sha256(hashed.encode()).hexdigest()[:8]


def stem(name: str) -> str:
    """Return a name without its audio suffix; other dots stay."""
    return name[: -len(suffix)] if (suffix := suffix_of(name)) else name


def suffix_of(name: str) -> str:
    """Return the audio suffix a name ends in, as written, or ''."""
    dot = name.rfind(".")
    return name[dot:] if dot > 0 and name[dot:].lower() in SUFFIXES else ""


def find_recording_id(text: str) -> str:
    """Find the archive and id that a text names: `http://www.freesound.org/people/x/sounds/42/` gives `freesound:42`."""
    for archive, pattern in ARCHIVES.items():
        if found := pattern.search(text):
            return f"{archive}:{found[1]}"
    return ""
