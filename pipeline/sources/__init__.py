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

from pipeline.sources.clip import AudioLocation
from pipeline.sources.listing import (
    SOURCE_HINT,
    Listing,
    describe_location,
    list_clips,
    log_listing,
    no_clip,
    read_clips,
    read_listing,
    readable,
    same_key,
    stamp,
    tag_vocabulary,
)
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.reading import (
    CanonicalAudio,
    decode_canonical,
    read_alone,
    read_audio,
    read_bytes,
    read_canonical,
    read_encoded,
    read_or_reason,
    read_samples,
)

__all__ = [
    "SOURCE_HINT", "AudioLocation", "CanonicalAudio", "Listing", "ListingStats", "decode_canonical", "describe_location",
    "list_clips", "log_listing", "no_clip", "read_alone", "read_audio", "read_bytes", "read_canonical", "read_clips",
    "read_encoded", "read_listing", "read_or_reason", "read_samples", "readable", "same_key", "stamp", "tag_vocabulary",
]  # fmt: skip
