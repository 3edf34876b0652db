"""The audio files of a source, found by name in any of the usual namings."""

from functools import cached_property

from pipeline import storage
from pipeline.sources import audioset
from pipeline.sources.clip import stem, suffix_of

TIMES = (  # how times stand in file names: none, seconds, milliseconds; of start and end, or of the start alone
    "", "_{0.start_s:.0f}_{0.end_s:.0f}", "_{0.start_s:.3f}_{0.end_s:.3f}", "_{0.start_s:.1f}_{0.end_s:.1f}",
    "_{1:.0f}_{2:.0f}", "_{0.start_s:.0f}", "_{0.start_s:06.0f}", "_{1:.0f}",
)  # fmt: skip
SPLITS = ("development", "validation", "evaluation")
NAMINGS = [prefix + "{0.ytid}" + times for prefix in ("Y", "") for times in TIMES]


class AudioFolder:
    """Names inside a source's folder and its `audio/`, listed once: asking for each of millions of files is slow."""

    def __init__(self, folder: str, table: str = "") -> None:
        """Take the folder of a table, and the table's name where a folder of audio may be named like its split."""
        self.folder = folder
        self.suffixes: dict[str, str] = {}  # of the names in the audio folder, by stem
        self.audio = storage.join(folder, "audio")
        for place in [*self.places(folder, table), folder]:
            found = {stem(name): suffix_of(name) for name in storage.names(place) if place != folder or suffix_of(name)}
            if found:
                self.audio, self.suffixes = place, found
                break
        self.last = NAMINGS[0]

    @staticmethod
    def places(folder: str, table: str) -> list[str]:
        """Return where the audio of a table may lie."""
        splits = [split for split in SPLITS if split in table]  # Clotho: development/ for its development table
        beside = [storage.join(folder, name) for name in ("audio", "video", *splits)]
        above, _, own = folder.rpartition("/")
        if own == "meta":  # ESC-50: meta/esc50.csv and audio/
            beside.append(storage.join(above, "audio"))
        if table.endswith(".json"):  # WavCaps: json_files/FreeSound/fsd_final.json and waveforms/FreeSound_flac/
            beside.append(storage.join(above.rpartition("/")[0], "waveforms", f"{own}_flac"))
        return beside

    def find(self, segment: audioset.Segment) -> str:
        """Return the file of a segment in any of the usual namings, or the place where `Y<id>.flac` should be."""
        for naming in (self.last, *NAMINGS) if self.suffixes else ():  # nearly always all files are named alike
            name = naming.format(segment, segment.start_s * 1000, segment.end_s * 1000)
            if name in self.suffixes:
                self.last = naming
                return storage.join(self.audio, name + self.suffixes[name])
        return storage.join(self.audio, f"Y{segment.ytid}.flac")

    def place(self, file: str) -> str:
        """Return the place of a file named in a table: as written, relative to the table, or in `audio/`."""
        if "://" in file or file.startswith("/"):
            return file
        if file in self.suffixes:  # named without suffix, as in FSD50K's tables
            return storage.join(self.audio, file + self.suffixes[file])
        first = file.partition("/")[0]
        inside = stem(first) in self.suffixes or (self.suffixes and first not in self.beside)
        return storage.join(self.audio if inside else self.folder, file)

    @cached_property
    def beside(self) -> set[str]:
        """The names beside the table; listed only where some are not in `audio/`."""
        return set(storage.names(self.folder))
