"""The audio files of a source, found by the usual ways to name a file after its clip."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from pipeline import storage
from pipeline.sources import audioset
from pipeline.sources.clip import SUFFIXES, stem, suffix_of
from pipeline.sources.listing_stats import ListingStats

TIMES = (  # times in file names: none, seconds or milliseconds; of start and end, or of the start alone
    "", "_{0.start_s:.0f}_{0.end_s:.0f}", "_{0.start_s:.3f}_{0.end_s:.3f}", "_{0.start_s:.1f}_{0.end_s:.1f}",
    "_{1:.0f}_{2:.0f}", "_{0.start_s:.0f}", "_{0.start_s:06.0f}", "_{1:.0f}",
)  # fmt: skip
OF_TABLES = {"audioset_strong": "strong_label_real"}  # DESED's folder of audio that is not named as its table
SPLITS = ("development", "validation", "evaluation")
NAMINGS = [prefix + "{0.ytid}" + times for prefix in ("Y", "") for times in TIMES]


class AudioFolder:
    """The names inside a source's folder and its `audio/`, listed once: a request for each of millions of files is slow."""

    def __init__(self, folder: str, table: str, stats: ListingStats) -> None:
        """Take the folder of a table, its name, as a folder of audio may be named like its split, and what counts files."""
        self.folder, self.stats = folder, stats
        self.suffixes: dict[str, str] = {}  # of the names in the audio folder, by stem
        self.others = Counter[str]()  # files that are not used, as another one of their stem is; by stem
        self.audio = storage.join(folder, "audio")
        for uri in [*self.candidates(folder, table), folder]:
            names = (name for name in storage.names(uri) if uri != folder or suffix_of(name))
            self._take(names)
            if self.suffixes:
                self.audio = uri
                break
        self.last_naming = NAMINGS[0]

    def _take(self, names: Iterable[str]) -> None:
        """Take the names of a folder, which come in any order: of one stem the file whose suffix SUFFIXES has first."""
        for name in names:
            key, suffix = _composed(stem(name)), suffix_of(name)
            if key in self.suffixes:
                self.others[key] += 1
                suffix = min(suffix, self.suffixes[key], key=_rank)
            self.suffixes[key] = suffix

    def _named(self, key: str) -> str:
        """Return the file of a stem that is there; the others of this stem count as skipped."""
        self.stats.skip("files", "another file of their clip is used", self.others.pop(key, 0))
        return storage.join(self.audio, key + self.suffixes[key])

    @staticmethod
    def candidates(folder: str, table: str) -> list[str]:
        """Return the folders in which the audio of a table may lie."""
        splits = [split for split in SPLITS if split in table]  # Clotho: development/ for its development table
        beside = [storage.join(folder, name) for name in ("audio", "video", *splits)]
        above, _, name = folder.rpartition("/")
        if name == "meta":  # ESC-50: meta/esc50.csv and audio/
            beside.append(storage.join(above, "audio"))
        root, sign, inside = f"{folder}/{table.partition('.')[0]}".rpartition("/metadata/")
        if sign:  # DESED: metadata/validation/validation.tsv, and audio/validation/validation/ or audio/validation/
            *path, last = inside.split("/")
            beside += [
                storage.join(root, "audio", *path, OF_TABLES.get(last, last)),
                storage.join(root, "audio", *path),
            ]
        if table.endswith(".json"):  # WavCaps: json_files/FreeSound/fsd_final.json and waveforms/FreeSound_flac/
            beside.append(storage.join(above.rpartition("/")[0], "waveforms", f"{name}_flac"))
        return beside

    def find(self, segment: audioset.Segment) -> str:
        """Return the file of a segment in any of the usual namings, or the URI that `Y<id>.flac` would have."""
        for naming in (self.last_naming, *NAMINGS) if self.suffixes else ():  # nearly always all files are named alike
            name = naming.format(segment, segment.start_s * 1000, segment.end_s * 1000)
            if name in self.suffixes:
                self.last_naming = naming
                return self._named(name)
        return storage.join(self.audio, f"Y{segment.ytid}.flac")

    def locate(self, file: str) -> str:
        """Return the URI of a file named in a table: as written, relative to the table, or in `audio/`."""
        if "://" in file or file.startswith("/"):
            return file
        if _composed(file) in self.suffixes:  # named without suffix, as in FSD50K's tables
            return self._named(_composed(file))
        first = file.partition("/")[0]
        inside = _composed(stem(first)) in self.suffixes or (self.suffixes and first not in self.beside)
        return storage.join(self.audio if inside else self.folder, file)

    @cached_property
    def beside(self) -> set[str]:
        """The names beside the table; listed only where some are not in `audio/`."""
        return set(storage.names(self.folder))


def _composed(name: str) -> str:
    """Return a name with its accents in its letters (NFC); disks may keep them apart, and reading tries both."""
    return unicodedata.normalize("NFC", name)


def _rank(suffix: str) -> tuple[int, str]:
    lower = suffix.lower()
    return (SUFFIXES.index(lower) if lower in SUFFIXES else len(SUFFIXES)), suffix
