"""See it: orders are placed while consumers and a shard are killed; each is shipped once.

    python -m examples.outbox

Starts two redis-servers, a relay and two consumers. Exits with 0 if every order has been shipped
exactly once. The other roles are started by it: ``relay`` and ``consumer``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cluster_layer.embedded import start_shards
from cluster_layer.processes import ChildProcess

ORDERS = 300
DEADLINE_S = 90.0
CHANNEL = "shipping"


def main(arguments: list[str]) -> int:
    """One of the roles, by name; without arguments the whole story."""
    if not arguments:
        return _story()
    _set_up()
    from examples.outbox import outbox

    roles: dict[str, Callable[[], None]] = {
        "relay": lambda: asyncio.run(outbox.relay()),
        "consumer": lambda: asyncio.run(outbox.consume(CHANNEL, _ship)),
    }
    roles[arguments[0]]()
    return 0


def _set_up() -> None:
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.outbox.settings"
    django.setup()


def _ship(body: dict[str, int]) -> None:
    from examples.outbox.models import Parcel

    Parcel.objects.create(order_number=body["order"])


def _place_order(number: int) -> None:
    """The order and the message about it: both are there, or neither."""
    from django.db import transaction

    from examples.outbox.models import Order
    from examples.outbox.outbox import enqueue

    with transaction.atomic():
        Order.objects.create(number=number)
        enqueue(CHANNEL, {"order": number})


def _story() -> int:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shards = stack.enter_context(start_shards(2))
        os.environ["OUTBOX_DATABASE"] = str(directory / "db.sqlite3")
        os.environ["OUTBOX_SHARDS"] = " ".join(server.url for server in shards)
        _set_up()
        from examples.outbox.models import create_tables

        create_tables()

        def start(role: str) -> ChildProcess:
            command = [sys.executable, "-m", "examples.outbox", role]
            process = ChildProcess(command, output=directory / "log", env=dict(os.environ))
            stack.callback(process.kill)
            return process

        start("relay")
        consumers = [start("consumer") for _ in range(2)]
        for number in range(ORDERS):
            _place_order(number)
            if number == ORDERS // 3:
                print("killing a consumer")
                consumers[0].kill()
                consumers[0] = start("consumer")
            if number == ORDERS // 2:
                print("killing both shards: what is in them is gone")
                for server in shards:
                    server.kill()
            if number == 2 * ORDERS // 3:
                for server in shards:
                    server.restart()
            time.sleep(0.01)
        return _account()


def _account() -> int:
    from django.db.models import Sum

    from examples.outbox.models import Outbox, Parcel, Repeated

    deadline = time.monotonic() + DEADLINE_S
    while Outbox.objects.filter(done=False).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    shipped = sorted(Parcel.objects.values_list("order_number", flat=True))
    sent = Outbox.objects.aggregate(all=Sum("sent"))["all"]
    repeated = Repeated.objects.count()
    print(f"{ORDERS} orders, {sent} messages sent, {repeated} came once more and had no effect")
    if shipped == list(range(ORDERS)):
        print("every order was shipped exactly once")
        return 0
    print(f"WRONG: {len(shipped)} parcels for {len(set(shipped))} orders")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
