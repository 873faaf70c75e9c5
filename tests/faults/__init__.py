"""Random schedules of faults, each ending with a checker: no wrong row, and little trained twice.

A schedule is a list of drivers that run one small study, one after another, with the faults that each of them meets.
Every driver is a process of its own. :mod:`.faults` draws schedules, :mod:`.disk` is the file system on which faults
come true, :mod:`.checker` runs a schedule and says what was wrong, and ``python -m tests.faults`` runs many.
"""
