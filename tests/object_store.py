"""An S3 on this machine that speaks the real protocol, with one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest

BUCKET = "bucket"


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """Yield the environment in which every process of this machine finds the bucket."""
    reason = "moto is not installed: pip install 'dfad-bench[dev]'"
    server = pytest.importorskip("moto.server", reason=reason).ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    boto3 = pytest.importorskip("boto3", reason=reason)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()  # one that was opened before knows another server's address
    try:
        boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="nobody",
            aws_secret_access_key="nothing",
        ).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        server.stop()
        s3.clear_instance_cache()
