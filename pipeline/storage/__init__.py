"""Files on local disk and at s3://, gs:// and hf:// URIs; hf:// is for reading only. No other package knows a URI scheme.

A published name always holds a complete file. On disk a file is written under a temporary name and then renamed. An object
store replaces an object in one request. Temporary faults of a remote store are retried; a StoreFault means that the
fault stayed.

    files.py        list, read, publish, create, move, remove
    formats.py      JSON, text and Parquet
    arrow.py        Arrow's filesystems, which read the remote stores
    s3.py           what Arrow's S3 filesystem lacks, through boto3
    retrying.py     with_retries, and StoreFault: what stays of a fault of a store
    hf.py           models of transformers by name
    read_ahead.py   results of a function in order, computed ahead in threads

obstore 0.12 was tried in place of boto3, and left out: it copies objects in one request only, which S3 bounds at 5 GiB; it
holds the listing of a folder in memory (157 MB for 200,000 names); its timeouts end slow uploads that still move; and
disk, Parquet and hf:// stay as they are, so that the package shrinks by 7 % only.
"""

from pipeline.storage.arrow import TooLarge
from pipeline.storage.files import (
    check_writable,
    create,
    exists,
    file_sizes,
    is_folder,
    join,
    list_names,
    move,
    names,
    open_seekable,
    open_stream,
    publish,
    read,
    read_start,
    remove,
    resolve,
    stamps,
    write_temporary,
)
from pipeline.storage.formats import (
    json_bytes,
    open_parquet,
    open_text,
    plain,
    publish_json,
    publish_table,
    read_json,
    read_table,
    read_text,
    table_bytes,
)
from pipeline.storage.retrying import StoreFault, fault_of

__all__ = [
    "StoreFault",
    "TooLarge",
    "check_writable",
    "create",
    "exists",
    "fault_of",
    "file_sizes",
    "is_folder",
    "join",
    "json_bytes",
    "list_names",
    "move",
    "names",
    "open_parquet",
    "open_seekable",
    "open_stream",
    "open_text",
    "plain",
    "publish",
    "publish_json",
    "publish_table",
    "read",
    "read_json",
    "read_start",
    "read_table",
    "read_text",
    "remove",
    "resolve",
    "stamps",
    "table_bytes",
    "write_temporary",
]
