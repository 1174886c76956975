"""Traffic between several OS processes, and the judgement of what became of every message.

`Load` starts the processes and collects what they have written down, `verdict_of` judges it.
"""

from tests.support.loads.flows import Shape, Traffic
from tests.support.loads.healing import served_again_s
from tests.support.loads.load import Load
from tests.support.loads.records import Records
from tests.support.loads.verdicts import Verdict, verdict_of

__all__ = ["Load", "Records", "Shape", "Traffic", "Verdict", "served_again_s", "verdict_of"]
