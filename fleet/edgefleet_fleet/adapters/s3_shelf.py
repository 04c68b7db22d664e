"""The shelf in an object store that speaks S3 (boto3): `<prefix>/<first two digits>/<digest>`.

A blob is gathered in a temporary file and hashed on the way; only bytes of the right digest are
sent, in one request that carries the digest (`x-amz-checksum-sha256`), so that the store checks it
too. An object is there whole or not at all, so nothing has to be removed after a crash. Address,
region and credentials are found as boto3 finds them: `AWS_ENDPOINT_URL_S3`, `AWS_REGION`,
`AWS_ACCESS_KEY_ID` …, `~/.aws`, the machine's role.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.adapters.gather import PIECE, gather
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.ports import Readable

_IN_MEMORY: Final = 8 * 1024 * 1024
_ABSENT: Final = ("404", "NoSuchKey", "NotFound")
_EXTRA: Final = "pip install 'edgefleet[fleet-s3]'"
_HINT: Final = "see AWS_ENDPOINT_URL_S3, AWS_REGION and the credentials of the service"


class S3Shelf:
    """Blobs below a prefix of one bucket."""

    def __init__(self, address: str) -> None:
        """`address` is `s3://bucket/prefix`.

        Raises:
            OperatorError: it is not, or boto3 is not installed, or knows no region.
        """
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise OperatorError(f"shelf {address[:80]!r} is not s3://bucket/prefix")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ModuleNotFoundError as error:
            raise OperatorError(f"{error.name} is not installed", hint=_EXTRA) from None
        self._answers: type[Exception] = ClientError
        self._errors: tuple[type[Exception], ...] = (ClientError, BotoCoreError)
        retries: Any = {"mode": "standard", "max_attempts": 4}
        config = Config(connect_timeout=5, read_timeout=60, retries=retries)
        try:
            self._client: Any = boto3.client("s3", config=config)
        except BotoCoreError as error:
            raise OperatorError(f"shelf {address[:80]!r}: {error}", hint=_HINT) from None

    def prepare(self) -> None:
        """See that the bucket answers.

        Raises:
            OperatorError: it does not.
        """
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except self._errors as error:
            raise self._trouble(f"bucket {self._bucket!r}", error) from None

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        return self.size(digest) is not None

    def put(self, digest: Digest, source: Readable, *, max_bytes: int) -> int:
        """Take a blob; its size.

        Raises:
            Malformed: DIGEST_MISMATCH, or TOO_LARGE.
            OperatorError: the store or the temporary disk does not take it, or `source` ended.
        """
        try:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as gathered:
                size = gather(digest, source, gathered, max_bytes=max_bytes)
                gathered.seek(0)
                self._client.put_object(
                    **self._name(digest),
                    Body=gathered,
                    ContentLength=size,
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(digest)).decode(),
                )
        except self._errors as error:
            raise self._trouble(f"blob {digest[:8]}", error) from None
        except OSError as error:
            raise OperatorError(
                f"blob {digest[:8]}: cannot be gathered: {error.strerror or error}"
            ) from None
        return size

    def size(self, digest: Digest) -> int | None:
        """The size of a blob, bytes; None where it is not there."""
        try:
            return int(self._client.head_object(**self._name(digest))["ContentLength"])
        except self._errors as error:
            if self._is_absent(error):
                return None
            raise self._trouble(f"blob {digest[:8]}", error) from None

    def remove(self, digest: Digest) -> None:
        """Take a blob away, if it is there."""
        try:
            self._client.delete_object(**self._name(digest))
        except self._errors as error:
            raise self._trouble(f"blob {digest[:8]}", error) from None

    def digests(self, *, before: float | None = None) -> Iterator[Digest]:
        """Every blob that is there, in the order of the digests; put before a time, if given."""
        root = f"{self._prefix}/" if self._prefix else ""
        listing = self._client.get_paginator("list_objects_v2")
        try:
            for page in listing.paginate(Bucket=self._bucket, Prefix=root):
                for found in page.get("Contents", ()):
                    if before is None or found["LastModified"].timestamp() < before:
                        yield Digest(found["Key"].rpartition("/")[2])
        except self._errors as error:
            raise self._trouble(f"bucket {self._bucket!r}", error) from None

    def read(self, digest: Digest, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a blob, from `start`, in pieces.

        Raises:
            NotFound: it is not there.
            OperatorError: the store does not give it.
        """
        size = self.size(digest)
        if size is None:
            raise NotFound(f"blob {digest[:8]} is not on the shelf")
        end = size if length is None else min(size, start + length)
        if start >= end:
            return iter(())
        try:
            wanted = f"bytes={start}-{end - 1}"
            found = self._client.get_object(**self._name(digest), Range=wanted)
        except self._errors as error:
            raise self._trouble(f"blob {digest[:8]}", error) from None
        return self._pieces(digest, found["Body"])

    def _pieces(self, digest: Digest, body: Any) -> Iterator[bytes]:
        try:
            yield from body.iter_chunks(PIECE)
        except self._errors as error:  # in the middle: whoever reads it starts again
            raise self._trouble(f"blob {digest[:8]}", error) from None

    def _name(self, digest: Digest) -> dict[str, str]:
        key = "/".join(part for part in (self._prefix, digest[:2], digest) if part)
        return {"Bucket": self._bucket, "Key": key}

    def _is_absent(self, error: Exception) -> bool:
        said: Any = getattr(error, "response", {})
        return isinstance(error, self._answers) and said["Error"]["Code"] in _ABSENT

    def _trouble(self, what: str, error: Exception) -> OperatorError:
        return OperatorError(f"{what}: the object store: {error}", hint=_HINT)
