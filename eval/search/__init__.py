"""Search over every clip: an index of embeddings, captions and tags, and what answers queries."""

from eval.search.index import IndexedDataset, IndexInfo
from eval.search.searcher import MAX_K, Hit, Mode, Query, Searcher

__all__ = ["MAX_K", "Hit", "IndexInfo", "IndexedDataset", "Mode", "Query", "Searcher"]
