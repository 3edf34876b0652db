"""Files on local disk and at s3://, gs:// and hf:// URIs."""

from pipeline.storage.files import *  # noqa: F403
