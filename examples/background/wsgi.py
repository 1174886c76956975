"""A WSGI view that sends to a group; as it stands under gunicorn, uWSGI or mod_wsgi, too.

`python -m examples.background.wsgi 8001` serves it with Python's own server, a thread per request.
"""

import sys
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from cluster_layer import ClusterError
from cluster_layer.sync import SyncChannelLayer
from examples.background.config import CONFIG

MAX_BODY_BYTES = 100_000

layer = SyncChannelLayer(**CONFIG)  # for all threads, and for all processes of a prefork server


def application(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]
) -> Iterable[bytes]:
    """POST /<group> with a form field `text`."""
    if environ["REQUEST_METHOD"] != "POST":
        start_response("405 Method Not Allowed", [("Allow", "POST")])
        return [b"POST to /<group>\n"]
    length = min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BODY_BYTES)
    form = parse_qs(environ["wsgi.input"].read(length).decode())
    group = environ["PATH_INFO"].strip("/")
    try:
        layer.group_send(group, {"type": "notice", "text": form.get("text", [""])[0]})
    except ClusterError as error:
        # Sent again, an unknown one might come twice: the client has to know which it is.
        status = "503 Service Unavailable" if error.definite else "504 Gateway Timeout"
        start_response(status, [("Content-Type", "text/plain")])
        return [f"{error}\n".encode()]
    start_response("202 Accepted", [("Content-Type", "text/plain")])
    return [b"sent\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


if __name__ == "__main__":
    with make_server(
        "127.0.0.1", int(sys.argv[1]), application, server_class=_Server, handler_class=_Quiet
    ) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
