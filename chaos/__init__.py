"""The chaos suite's place: workloads, faults and checkers over recorded histories.

Nothing is here yet; until the suite exists, the promises are tested under `tests/integration`.
"""
