"""The tables: what is to be told, what has been done, and the effects."""

from __future__ import annotations

from typing import Any

from django.db import models


class Outbox(models.Model):
    """A message that must not get lost. It is sent until a consumer has marked it as done."""

    channel = models.CharField(max_length=100)
    body = models.JSONField()
    send_at = models.FloatField(default=0.0, db_index=True)  # not before this time
    sent = models.IntegerField(default=0)  # how many times
    done = models.BooleanField(default=False, db_index=True)

    class Meta:
        app_label = "outbox"


class Order(models.Model):
    """What a customer has ordered."""

    number = models.IntegerField(unique=True)

    class Meta:
        app_label = "outbox"


class Parcel(models.Model):
    """The effect of a message: not unique on purpose, so that a second one would be seen."""

    order_number = models.IntegerField(db_index=True)

    class Meta:
        app_label = "outbox"


class Repeated(models.Model):
    """A message that came once more, and had no effect."""

    outbox_id = models.IntegerField()

    class Meta:
        app_label = "outbox"


def create_tables() -> None:
    """A site would have migrations."""
    from django.db import connection

    tables: list[Any] = [Outbox, Order, Parcel, Repeated]
    with connection.schema_editor() as editor:
        for table in tables:
            editor.create_model(table)
