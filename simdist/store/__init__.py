"""Where bytes live: immutable objects, records, manifests and names, on files, S3 or memory.

    worker                                   driver                     reader
    write_array ──> data/{kind}-{sha}.npy
    write_record ─> records/{fp}/{task}.json ──> commit ──> manifests/{fp}.json ──> dataset
         once: put-if-absent                      once             │ refs with sha256
                                             name ──> names/graph/00000003.json
    Store      what lies where, and which writes happen once
    Objects    bytes by key, on obstore               Place   uri and options, checked
    patience   how long to go on trying               sealed  JSON that carries its own sum
    cache      the worker's: checked once, mapped     maintenance   verify, gc, abandon

Data is named by its content, so writing it twice is harmless; a record or manifest is created once,
so a race has one winner and everyone reads it. Readers follow manifests, never listings.

Imports neither engines nor stages, and does not know what the bytes mean. obstore and pyarrow are
imported when first used.
"""

from simdist.store.datasets import Dataset, Manifest, Shard
from simdist.store.objects import ObjectInfo, Objects
from simdist.store.store import Store, open_store

__all__ = ["Dataset", "Manifest", "ObjectInfo", "Objects", "Shard", "Store", "open_store"]
