"""Messages as JSON and back. What JSON lacks is an object with one key: "$bytes" or "$float"."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from cluster_layer.errors import InvalidMessage


def message_from(text: str) -> dict[str, Any]:
    """The message in a JSON text; InvalidMessage says what is wrong with it."""
    try:
        message = json.loads(text)
    except ValueError as error:
        raise InvalidMessage(f"the message is no JSON: {error}") from None
    if not isinstance(message, dict):
        raise InvalidMessage('the message must be a JSON object such as {"type": "chat.message"}')
    found = _from_json(message)
    if not isinstance(found, dict):
        raise InvalidMessage("the message itself cannot be bytes: put them into an object")
    return found


def text_of(message: dict[str, Any]) -> str:
    """The message as one line of JSON."""
    return json.dumps(_to_json(message), ensure_ascii=False, allow_nan=False)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$bytes"}:
        try:
            return base64.b64decode(value["$bytes"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InvalidMessage(f'"$bytes": {value["$bytes"]!r:.60} is no base64') from None
    if value.keys() == {"$float"} and value["$float"] in ("nan", "inf", "-inf"):
        return float(value["$float"])
    return {key: _from_json(one) for key, one in value.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {key: _to_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_to_json(one) for one in value]
    return value
