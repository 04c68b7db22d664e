"""A real S3 server (moto's) in a thread of this process, on a port of its own."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator

import boto3
from moto.server import ThreadedMotoServer

_NUMBERS = itertools.count(1)
REGION = "eu-central-1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of the server while it runs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket() -> str:
    """The name of a new, empty bucket of the server that the environment names."""
    name = f"blobs-{next(_NUMBERS)}"
    boto3.client("s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return name
