"""The command line: `simdist plan | run | show | verify | gc | doctor | calibrate`.

    arguments ──> app (a function a verb) ──> config, models, store ──> report ──> stdout
                                  │ progress ──> stderr
                                  └ errors: plain text on stderr, and an exit code

Exit codes: 0 done · 2 the configuration or the data is wrong · 3 a task failed, run again to
resume · 4 another run committed something else · 5 damaged data, or a store or engine that is unfit
· 130 interrupted, run again to resume. With `--json`, stdout holds JSON only.
"""

from simdist.cli.app import main

__all__ = ["main"]
