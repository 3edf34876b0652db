"""Which column of a table, or key of a JSON row, has which role: the usual names in any case, or those of --columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.errors import InputError
from pipeline.sources.rows import Fields, ListingError

ROLES = {  # role -> the usual names, the first that a table has is used
    "file": (
        "file", "filename", "file_name", "audio", "path", "slice_file_name", "fname", "audio_filepath", "audio_path",
        "filepath", "file_path", "wav", "audio_file",
    ),
    "labels": (
        "human_labels", "labels", "label", "tags", "tag", "category", "class", "class_name", "event_label",
        "event_labels",
    ),
    "captions": ("captions", "caption", "text", "sentence", "raw_text"),
    "fold": ("fold", "split"),
    "mids": ("mids", "positive_labels", "audioset_positive_labels"),
    "youtube": ("youtube_id", "ytid", "video_id"),
    "freesound": ("freesound_id", "fsid", "src_file", "sound_id"),
    "source": ("source_id", "url", "href", "download_link"),
    "start": ("start", "start_s", "start_time", "start_seconds", "offset"),
    "end": ("end", "end_s", "end_time", "end_seconds"),
    "duration": ("duration", "duration_s"),
}  # fmt: skip
COLUMNS_HINT = ", ".join(f"{role}=<column>" for role in ("file", "labels", "captions"))


def normalise(name: object) -> str:
    """Return the name of a column as names are compared: without blanks around it, in lower case."""
    return str(name).strip().lower()


def parse(text: str) -> dict[str, str]:
    """Return {role: column} of `file=path,labels=tags`; a role without a column, as in `start=`, is left out.

    Raises:
        InputError: naming --columns when a part is no pair or no role.
    """
    chosen: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        role, sign, name = (normalise(text) for text in part.partition("="))
        if not sign or role not in ROLES:
            raise InputError("--columns", text, f"{part!r} is not <role>=<column>; roles are {', '.join(ROLES)}")
        chosen[role] = name
    return chosen


def choose(uri: str, header: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return {role: column} of a table, by normalised names. Raises ListingError when a column of --columns is absent."""
    names_in_table = list(header)
    found: dict[str, str] = {}
    for role, names in ROLES.items():
        if role in given:
            if given[role] and given[role] not in names_in_table:
                raise ListingError(
                    uri, 0, f"no column {given[role]!r}, which --columns names; columns are {names_in_table}"
                )
            candidates: Sequence[str] = (given[role],)
        else:
            candidates = [name for name in names if name not in given.values()]
        if name := next((name for name in candidates if name in names_in_table), ""):
            found[role] = name
    return found


def lowered(fields: Mapping[str, Any]) -> Fields:
    """Return the fields of a row under normalised names."""
    return {normalise(name): value for name, value in fields.items()}


def renamed(fields: Mapping[str, Any], given: Mapping[str, str]) -> Fields:
    """Return the fields of a JSON row under the usual names; a column that --columns gives a role hides its other names."""
    plain = lowered(fields)
    for role, column in given.items():
        value = plain.get(column)
        plain = {name: kept for name, kept in plain.items() if name not in ROLES[role]}
        if column:
            plain[ROLES[role][0]] = value
    return plain
