"""The chat page in a real browser, on two servers and three shards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_layer.demo.consumers import group_of
from cluster_layer.demo.site import Site
from tests.support.browser import Browser, Page, find_chromium, running_chromium
from tests.support.waiting import eventually

_CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.skipif(_CHROMIUM is None, reason="needs chromium on PATH"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert _CHROMIUM is not None
    with running_chromium(_CHROMIUM) as browser:
        yield browser


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def pages(site: Site, browser: Browser) -> Iterator[tuple[Page, Page]]:
    """Ann's page from the first server, Bob's from the second."""
    with browser.page() as ann, browser.page() as bob:
        for page, url, name in ((ann, site.urls[0], "ann"), (bob, site.urls[1], "bob")):
            page.open(f"{url}/")
            page.evaluate(f"document.querySelector('#name').value = '{name}'")
        yield ann, bob
        assert [*ann.errors, *bob.errors] == []


def a_room_on(site: Site, shard: str) -> str:
    """The name of a room that lives on that shard."""
    names = (f"room-{number}" for number in range(1000))
    return next(name for name in names if site.topology.shard_of(group_of(name)).id == shard)


def join(page: Page, room: str) -> None:
    page.type_into("#room", room)
    page.wait_for(f"document.querySelector('#rooms [data-room=\"{room}\"]')?.dataset.shard")


def messages(page: Page) -> str:
    return str(page.evaluate("document.querySelector('#messages').innerText"))


def test_people_on_two_servers_talk(pages: tuple[Page, Page]) -> None:
    """What one says, both read, with the name of who said it."""
    ann, bob = pages
    join(ann, "lobby")
    join(bob, "lobby")
    ann.type_into("#text", "hello <b>bob</b>")
    for page in pages:
        page.wait_for("document.querySelectorAll('#messages li').length === 1")
        assert "ann" in messages(page)
        # Text stays text, whatever is in it.
        assert "hello <b>bob</b>" in messages(page)


def test_each_room_shows_its_shard(site: Site, pages: tuple[Page, Page]) -> None:
    """Rooms are labelled with the shard that the topology says."""
    ann, _ = pages
    for shard in site.shards:
        room = a_room_on(site, shard)
        join(ann, room)
        labelled = f"document.querySelector('#rooms [data-room=\"{room}\"]').dataset.shard"
        assert ann.evaluate(labelled) == shard


def test_traffic_is_shown_per_shard(site: Site, pages: tuple[Page, Page]) -> None:
    """A shard's figures grow with what is said in its rooms, also in a room of the other page."""
    ann, bob = pages
    room = a_room_on(site, "shard-3")
    join(bob, room)
    for number in range(3):
        bob.type_into("#text", f"word {number}")
    published = "document.querySelector('#card-shard-3 [data-figure=published]')?.innerText"
    ann.wait_for(f"Number({published}) >= 3")


def test_leaving_a_room(pages: tuple[Page, Page]) -> None:
    """Who has left hears nothing more from the room."""
    ann, bob = pages
    join(ann, "lobby")
    join(bob, "lobby")
    bob.click("#rooms .leave")
    bob.wait_for("document.querySelectorAll('#rooms li').length === 0")
    ann.type_into("#text", "alone")
    ann.wait_for("document.querySelectorAll('#messages li').length === 1")
    join(bob, "other")
    bob.type_into("#text", "elsewhere")
    bob.wait_for("document.querySelectorAll('#messages li').length === 1")
    assert "alone" not in messages(bob)


def test_a_killed_shard_is_seen_and_heals(
    site: Site, pages: tuple[Page, Page], tmp_path: Path
) -> None:
    """The page shows that a shard is down and what was not sent; after its return all is well."""
    ann, bob = pages
    room = a_room_on(site, "shard-2")
    for page in pages:
        join(page, room)
    ann.click("#card-shard-2 button")
    eventually(lambda: not site.shards["shard-2"].running)
    site.write_state()
    state = "document.querySelector('#card-shard-2 .state').dataset.state"
    ann.wait_for(f"{state} === 'down'")
    ann.click("#chatter")
    ann.wait_for("document.querySelector('#lost tr.some') !== null")
    ann.wait_for("document.querySelector('#messages .trouble') !== null")
    site.shards["shard-2"].start()
    site.write_state()
    ann.wait_for(f"{state} === 'up'")
    # Nobody joined again: Bob, on the other server, hears Ann.
    bob.wait_for("document.querySelector('#messages .from')?.innerText === 'ann'")
    ann.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
