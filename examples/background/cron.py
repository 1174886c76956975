"""A script for cron: tell a group that something is done.

    python -m examples.background.cron results "the backup is done"

Exit code 1: it was not sent, and may be tried again; 2: it may have been sent.
"""

import sys

from cluster_layer import ClusterError
from cluster_layer.sync import SyncChannelLayer
from examples.background.config import CONFIG


def main(group: str, text: str) -> int:
    with SyncChannelLayer(**CONFIG) as layer:
        try:
            layer.group_send(group, {"type": "notice", "text": text})
        except ClusterError as error:
            print(error, file=sys.stderr)
            return 1 if error.definite else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
