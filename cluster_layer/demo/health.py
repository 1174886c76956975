"""`python -m cluster_layer.demo.health [URL]`: exit code 0 if the chat server answers."""

import sys
from http.client import HTTPException

from cluster_layer.demo.status import status_of

if __name__ == "__main__":
    try:
        status_of(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
    except (OSError, ValueError, HTTPException) as error:
        sys.exit(f"not healthy: {error}")
