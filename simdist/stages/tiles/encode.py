"""The bytes that zarr writes for a block, for ids and for metadata, made in memory.

Each task writes one or two objects of an array that nobody may open yet, so zarr is not let near
the store: it writes into a dictionary, in a loop and with a thread of the task's own (threads
belong to the engine), and the bytes are put where they belong under the store's own rules.

    similarity   float, [rows, columns]   sharding: shard = block, zstd chunks, crc32c on the index
    row, column  int64 or string          the ids, one chunk each
    zarr.json    the group, with the metadata of all three in it, so that opening needs no listing
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from simdist.errors import ConfigError
from simdist.store.formats import json_bytes
from simdist.types import Array, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.stages.tiles.grid import Grid

__all__ = ["group_objects", "import_zarr", "shard_bytes"]

LEVEL = 1  # of zstd: similarities hardly compress, and higher levels find no more in them


def import_zarr() -> Any:
    """The zarr library; ConfigError naming the extra where it is not installed."""
    try:
        import zarr  # noqa: PLC0415 - an extra, and a second to import
    except ImportError as error:
        raise ConfigError(
            f"similarity_tiles writes and reads Zarr arrays and needs the zarr library ({error}):"
            " pip install 'simdist[zarr]', here and on every worker"
        ) from error
    return zarr


def shard_bytes(grid: Grid, block: tuple[int, int], values: Array) -> bytes:
    """The shard of a block: what zarr would write at `similarity/c/{i}/{j}`."""
    i, j = block
    top, left = i * grid.block, j * grid.block
    part = (slice(top, top + values.shape[0]), slice(left, left + values.shape[1]))
    return _written(_similarity(grid, values.dtype.name), part, values)[f"c/{i}/{j}"]


def group_objects(
    grid: Grid, dtype: str, ids: Mapping[str, pa.Array], attributes: Mapping[str, Json]
) -> dict[str, bytes]:
    """Everything but the shards, by key; the group's own zarr.json last, as it must be written.

    ids: of the rows and of the columns, int64 or string. attributes: of the group.
    """
    metadata: dict[str, Json] = {}
    objects: dict[str, bytes] = {}
    similarity = _written(_similarity(grid, dtype), None, None)
    metadata["similarity"] = json.loads(similarity["zarr.json"])
    for name, labels in ids.items():
        plain = _labels(labels)
        made = _written(_coordinate(name, plain), slice(None), plain)
        metadata[name] = json.loads(made["zarr.json"])
        objects[f"{name}/c/0"] = made["c/0"]
    group: dict[str, Json] = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": metadata,
        },
    }
    for name, value in metadata.items():
        objects[f"{name}/zarr.json"] = json_bytes(value, what=f"metadata of {name}", indent=1)
    objects["zarr.json"] = json_bytes(group, what="metadata of the group", indent=1)
    return objects


def _similarity(grid: Grid, dtype: str) -> dict[str, Any]:
    return {
        "shape": (grid.rows, grid.columns),
        "dtype": dtype,
        "shards": (grid.block, grid.block),
        "chunks": (grid.chunk, grid.chunk),
        "fill_value": np.nan,  # a shard that was lost must not read as similarities of zero
        "dimension_names": ("row", "column"),
    }


def _coordinate(name: str, labels: Array) -> dict[str, Any]:
    return {
        "shape": labels.shape,
        "dtype": "int64" if labels.dtype.kind == "i" else "string",
        "chunks": labels.shape,
        "dimension_names": (name,),
    }


def _labels(ids: pa.Array) -> Array:
    """Ids as zarr takes them: int64, or an array of str."""
    plain: Array = ids.to_numpy(zero_copy_only=False)
    return plain.astype(np.int64) if plain.dtype.kind in "iu" else plain


def _written(settings: Mapping[str, Any], part: Any, values: Array | None) -> dict[str, bytes]:
    """What an array of these settings consists of after values[...] went to `part` of it."""
    zarr = import_zarr()
    from zarr.api.asynchronous import create_array  # noqa: PLC0415

    kept: dict[str, Any] = {}

    async def write() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="simdist-zarr"))
        array = await create_array(
            zarr.storage.MemoryStore(kept),
            zarr_format=3,
            compressors=zarr.codecs.ZstdCodec(level=LEVEL, checksum=True),
            config={"write_empty_chunks": True},
            **settings,
        )
        if values is not None:
            await array.setitem(part, values)

    asyncio.run(write())
    return {key: buffer.to_bytes() for key, buffer in kept.items()}
