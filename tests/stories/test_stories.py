"""Every story ends as it is told."""

import os
from pathlib import Path

import pytest

from tests.stories.story import Scene, Stage, scenes_of

STORIES = sorted(Path(__file__).parent.glob("*.txt"))
REWRITE = os.environ.get("STORIES") == "rewrite"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_is_played_as_it_is_told(path: Path) -> None:
    """Each command leads to the state below it."""
    stage, played = Stage(), []
    for scene in scenes_of(path):
        answer = stage.play(scene.command)
        played.append(Scene(scene.comment, scene.command, answer))
        if not REWRITE:
            assert answer == scene.expected, f"{path.name}: {scene.command}"
    if REWRITE:
        path.write_text("\n\n".join(map(str, played)) + "\n", encoding="utf-8")


def test_there_are_stories() -> None:
    """The files are found, and a wrong line in one would be noticed."""
    assert len(STORIES) >= 8
    stage, first = Stage(), next(scenes_of(STORIES[0]))
    assert stage.play(first.command) == first.expected != f"{first.expected} "
