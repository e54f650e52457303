"""Stage `sparse_attention`: softmax over the keys that matter, and a bound on what is left out.

    keys ──> pilot ──> codes ──┬─────────── attend ───────────┬──> row, output, certificate
             (centre)          │  one span of keys: a task a   │
    queries ───────────────────┤  block of queries does all    ├──> least: what an oracle needs,
                               │                               │    for a sample
                               └─ scan ─> choose ─> score ─────┘
                                    more spans: (block, span)    again ─> rescore ─> settle

    config.py   what is asked for             bounds.py   codes ──> levels of logits
    choice.py   levels ──> floors, tails      fold.py     scan, score, exact, certificates
    block.py    a block from start to end     sources.py  queries, keys, values as stored
    tasks.py    what each task does           story.py    which round follows which
    queries.py  panels, blocks, rounding      columns.py  columns of the keys as values

A scan looks at all keys as int8 codes and counts, for every query, how many have a logit of at most
so much: simdist.compiled.logits. From those counts alone follow the keys to score in full precision
and a bound on what all others weigh; counts add up over keys, so any number of tasks can scan.
"""

from simdist.stages.sparse_attention.config import SparseConfig
from simdist.stages.sparse_attention.story import SparseAttentionStage

__all__ = ["SparseAttentionStage", "SparseConfig"]
