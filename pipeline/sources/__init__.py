"""What users have -> clips.

A source is a file or a folder, on disk or at s3://, gs:// and hf:// URIs. The last part of a path may hold *, ? and {a..b}.

    *.csv, *.tsv (or .gz)      a table with a column of files; the tables of AudioSet (weak, strong), AudioCaps,
                               MusicCaps, Clotho, ESC-50, UrbanSound8K, FSD50K and VGGSound as published
    *.jsonl, *.json (or .gz)   metadata of Hugging Face's AudioFolder, NeMo's and Lhotse's manifests, WavCaps' files
    MACS.yaml                  as published
    *.tar                      WebDataset tars
    *.parquet                  Hugging Face style tables, with audio bytes or a column of files
    a folder                   its metadata.csv, .jsonl or .parquet, else its tars, else its Parquet files, else a
                               dataset in its official layout, else its audio files; folders inside name splits or classes
"""

from pipeline.sources.listing import (
    WANTED,
    Listing,
    list_clips,
    log_listing,
    no_clip,
    place_of,
    read_clips,
    read_listing,
    readable,
    same_key,
    stamp,
    tag_vocabulary,
)
from pipeline.sources.reading import PLACE, read_bytes, read_place, read_samples
from pipeline.sources.stats import ListingStats

__all__ = [
    "PLACE", "WANTED", "Listing", "ListingStats", "list_clips", "log_listing", "no_clip", "place_of", "read_bytes",
    "read_clips", "read_listing", "read_place", "read_samples", "readable", "same_key", "stamp", "tag_vocabulary",
]  # fmt: skip
