"""Search over every clip: an index of embeddings, captions and tags, and what answers queries."""

from eval.search.index import IndexedDataset, IndexInfo
from eval.search.query import MAX_K, Mode, Query
from eval.search.searcher import Hit, Searcher

__all__ = ["MAX_K", "Hit", "IndexInfo", "IndexedDataset", "Mode", "Query", "Searcher"]
