"""Whether a store keeps what the engine relies on: found out by trying."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from burr_otel.errors import StoreError

if TYPE_CHECKING:
    from burr_otel.store.objects.bucket import Bucket


def probe(bucket: Bucket, *, dry_run: bool) -> list[str]:
    """Write, list, read and delete a few objects; what was found, or would be looked for.

    Raises:
        StoreError: The store does not keep something.
    """
    folder = f"probe/{secrets.token_hex(8)}"
    if dry_run:
        return [f"Writes, lists, reads and deletes objects in {bucket.place}/probe."]
    one, two, three = paths = [f"{folder}/{number}" for number in range(3)]
    try:
        bucket.create(two, b"first")
        if bucket.create(two, b"second"):
            raise _unfit(bucket, "makes an object that is there already (If-None-Match)")
        version = bucket.put(one, b"first")
        bucket.replace(one, b"second", version)
        if bucket.replace(one, b"third", version):
            raise _unfit(bucket, "replaces an older version of an object (If-Match)")
        bucket.put(three, b"first")
        listed = [found.path for found in bucket.names(folder)]
        if listed != paths or [found.path for found in bucket.names(folder, one)] != paths[1:]:
            raise _unfit(bucket, "does not list at once, and by name, what is there")
        if (bucket.get(one), bucket.get(two)) != (b"second", b"first"):
            raise _unfit(bucket, "does not give back what was written")
    finally:
        bucket.delete(paths)
    return [
        f"{bucket.place} can keep runs:",
        "  a second create of an object is refused",
        "  a replacement of an older version is refused",
        "  a listing has what was written, in the order of names",
    ]


def _unfit(bucket: Bucket, what: str) -> StoreError:
    return StoreError(
        f"{bucket.place} cannot keep runs, because the store {what}: writers would lose each "
        "other's records. Use a store that keeps conditions, such as S3, or PostgreSQL."
    )
