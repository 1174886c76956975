"""The list of what a shard's user needs: complete, and the same in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from cluster_layer import scripts
from cluster_layer.overview import Role
from cluster_layer.permissions import NEEDED, name_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"
NAMES = {role: {name_of(command) for command in commands} for role, commands in NEEDED.items()}
#: What a script's call may be followed by, as in redis.call('PUBSUB', 'NUMSUB', ...).
_CALL = re.compile(r"redis\.call\('([A-Z]+)'(?:, '([A-Z]+)')?")


def called_by(*wanted: scripts.Script) -> set[str]:
    calls = [call for script in wanted for call in _CALL.findall(script.text)]
    return {name_of([part for part in call if part]) for call in calls}


def test_what_scripts_call_is_in_the_list() -> None:
    """Of those that processes run, in theirs; of all others, in the operators' too."""
    assert called_by(*scripts.ALL) <= NAMES[Role.PROCESS]
    every = [one for one in vars(scripts).values() if isinstance(one, scripts.Script)]
    assert len(every) > len(scripts.ALL)
    assert called_by(*every) <= NAMES[Role.PROCESS] | NAMES[Role.OPERATOR]
    assert "pubsub|numsub" in called_by(*every)


def test_no_command_is_in_the_list_for_nothing() -> None:
    """Each one is written somewhere in the sources."""
    sources = "".join(
        path.read_text()
        for path in (Path(scripts.__file__).parents[1]).rglob("*")
        if path.suffix in (".py", ".lua") and path.name != "permissions.py"
    )
    for names in NAMES.values():
        for name in names:
            for word in name.upper().split("|"):
                assert re.search(rf"['\"]{word}['\"]", sources), f"{name} is nowhere used"


def test_the_documentation_has_the_same_list() -> None:
    """Block by block; `check` needs a transaction besides."""
    blocks = re.findall(r"^```acl\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    documented = [{rule.removeprefix("+") for rule in block.split()} for block in blocks]
    assert documented[0] == NAMES[Role.PROCESS]
    assert documented[1] == NAMES[Role.OPERATOR]
    assert documented[2] == NAMES[Role.CHECK] | {"multi", "discard"}
