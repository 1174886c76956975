// The chat page: one WebSocket to its own server, figures from all servers.

const COLOURS = ["#6ea8fe", "#f0b429", "#b58cff", "#4cc38a", "#ff8fa3", "#5fd3d3"];
const FIGURES_EVERY_MS = 1000;
const CHATTER_EVERY_MS = 250;
const JOIN_AGAIN_AFTER_MS = 1000;
const LONGEST_LIST = 300;

const element = (id) => document.getElementById(id);
const LONGEST_OUTBOX = 20;
const rooms = new Map(); // name -> what newRoom() returns
const mine = { sent: 0, refused: 0, unknown: 0, missed: 0 };
let current = null;
let socket = null;

const newRoom = () => ({
  shard: null, // where it lives, once joined
  unread: 0,
  lines: [],
  newest: new Map(), // connection of a member -> number of the last message heard from it
  number: 0, // of my own last message that may have been delivered
  outbox: [], // my words: the first is under way, the others wait for its answer
});

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- the connection -------------------------------------------------------------------------

function connect() {
  socket = new WebSocket(`ws://${location.host}/chat`);
  socket.onopen = () => {
    showLink("open", "connected");
    for (const [room, entry] of rooms) {
      entry.outbox = []; // whether the first was sent will never be known
      entry.number += 1;
      request("join", room);
    }
  };
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = () => {
    showLink("closed", "connection lost, trying again");
    setTimeout(connect, JOIN_AGAIN_AFTER_MS);
  };
}

function showLink(state, text) {
  element("link").dataset.state = state;
  element("link").textContent = text;
}

function request(action, room, more = {}) {
  if (socket.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify({ do: action, room, ...more }));
  return true;
}

function take(event) {
  const handlers = { joined, left, said, sent, refused };
  handlers[event.event]?.(event);
}

function joined({ room, shard }) {
  const entry = rooms.get(room);
  if (!entry) return;
  entry.shard = shard;
  showRooms();
}

function left({ room }) {
  rooms.delete(room);
  if (current === room) show(rooms.keys().next().value ?? null);
  else showRooms();
}

function said(message) {
  const entry = rooms.get(message.room);
  if (!entry) return;
  // Every member counts up by one in each room, so a step of more than one is a loss.
  const newest = entry.newest.get(message.member);
  const missing = newest === undefined ? 0 : message.number - newest - 1;
  if (missing > 0) {
    mine.missed += missing;
    addLine(message.room, { trouble: `${missing} message(s) from ${message.from} were lost` });
  }
  entry.newest.set(message.member, message.number);
  addLine(message.room, message);
}

function sent({ room }) {
  mine.sent += 1;
  answered(room);
}

function refused({ do: action, room, certain, why }) {
  if (action === "join") {
    setTimeout(() => rooms.has(room) && request("join", room), JOIN_AGAIN_AFTER_MS);
    return;
  }
  mine[certain ? "refused" : "unknown"] += 1;
  addLine(room, { trouble: `${certain ? "not sent" : "perhaps not sent"}: ${why}` });
  // A number that was certainly not used is free again: nobody shall take it for a loss.
  if (certain && rooms.has(room)) rooms.get(room).number -= 1;
  answered(room);
}

function answered(room) {
  const entry = rooms.get(room);
  if (!entry) return;
  entry.outbox.shift();
  if (entry.outbox.length > 0) sayFirst(room, entry);
}

// ---- rooms and messages -----------------------------------------------------------------------

function join(room) {
  if (!rooms.has(room)) {
    rooms.set(room, newRoom());
    request("join", room);
  }
  show(room);
}

function say(room, text) {
  const entry = rooms.get(room);
  if (entry.outbox.length >= LONGEST_OUTBOX) return;
  entry.outbox.push(text);
  if (entry.outbox.length === 1) sayFirst(room, entry);
}

function sayFirst(room, entry) {
  entry.number += 1;
  const words = { from: element("name").value, number: entry.number, text: entry.outbox[0] };
  if (!request("say", room, words)) entry.outbox = [];
}

function addLine(room, line) {
  const entry = rooms.get(room);
  if (!entry) return;
  const last = entry.lines.at(-1);
  if (line.trouble && last?.trouble === line.trouble) {
    last.times += 1; // an outage says the same many times
    if (room === current) element("messages").lastChild.textContent = troubleText(last);
    return;
  }
  entry.lines.push(line.trouble ? { ...line, times: 1 } : line);
  entry.lines.splice(0, entry.lines.length - LONGEST_LIST);
  if (room === current) showLine(entry.lines.at(-1));
  else if (!line.trouble) entry.unread += 1;
  showUnread(room);
}

const troubleText = ({ trouble, times }) => (times > 1 ? `${trouble} (${times} times)` : trouble);

function showLine(line) {
  const list = element("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = make("li", line.trouble ? "trouble" : "");
  if (line.trouble) {
    item.textContent = troubleText(line);
  } else {
    if (line.from === element("name").value) item.classList.add("mine");
    item.append(make("span", "from", line.from), make("span", "text", line.text));
    item.append(make("span", "mark", titles.get(line.server) ?? ""));
  }
  list.append(item);
  while (list.children.length > LONGEST_LIST) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function show(room) {
  current = room;
  element("current").textContent = room ?? "No room yet";
  element("messages").replaceChildren();
  if (room !== null) {
    rooms.get(room).unread = 0;
    rooms.get(room).lines.forEach(showLine);
  }
  showRooms();
}

const colourOf = (shard) => `var(--${shard})`;

function showRooms() {
  const items = [...rooms].map(([room, entry]) => {
    const item = make("li");
    item.dataset.room = room;
    item.dataset.shard = entry.shard ?? "";
    item.tabIndex = 0;
    item.setAttribute("aria-selected", room === current);
    if (entry.shard) item.style.setProperty("--shard", colourOf(entry.shard));
    item.append(make("span", "title", room), make("span", "unread", entry.unread || ""));
    const leave = make("button", "leave", "\u00d7");
    leave.title = `leave ${room}`;
    leave.onclick = (event) => {
      event.stopPropagation(); // the click is not meant for the room around the button
      request("leave", room);
    };
    item.append(make("span", "home", entry.shard ?? "joining"), leave);
    item.onclick = () => show(room);
    item.onkeydown = (event) => event.key === "Enter" && show(room);
    return item;
  });
  element("rooms").replaceChildren(...items);
}

function showUnread(room) {
  const item = element("rooms").querySelector(`[data-room="${room}"] .unread`);
  if (item) item.textContent = rooms.get(room).unread || "";
}

// ---- figures ----------------------------------------------------------------------------------

// Refused: certainly not sent; unknown: perhaps.
const COUNTERS = ["published", "received", "refused", "unknown", "reconnects"];
const history = new Map(); // shard -> {total, rates}
const titles = new Map(); // process id -> what its server is called here
let servers = [location.origin];
let shownAt = performance.now();

const titleOf = (server) => `server ${servers.indexOf(server) + 1}`;

async function figuresOf(server) {
  try {
    const response = await fetch(`${server}/status.json`, { signal: AbortSignal.timeout(3000) });
    const answer = await response.json();
    titles.set(answer.pid, titleOf(server));
    return answer;
  } catch {
    return null; // its figures are missing from this round
  }
}

async function showFigures() {
  const answers = (await Promise.all(servers.map(figuresOf))).filter((answer) => answer);
  if (answers.length > 0) {
    // Behind a balancer the servers have no addresses of their own.
    if (answers[0].servers.length > 0) servers = answers[0].servers;
    element("epoch").textContent = `epoch ${Math.max(...answers.map((answer) => answer.epoch))}`;
    showServers();
    // A round with a server missing would look like a fall in the totals.
    if (answers.length === servers.length) showShards(answers);
    showLost(answers);
  }
  setTimeout(showFigures, FIGURES_EVERY_MS);
}

function showServers() {
  const links = servers.map((server) => {
    const link = make("a", "", titleOf(server));
    link.href = server;
    if (server === location.origin) link.setAttribute("aria-current", "page");
    return link;
  });
  element("servers").replaceChildren(...links);
}

function showShards(answers) {
  const seconds = Math.max(0.1, (performance.now() - shownAt) / 1000);
  shownAt = performance.now();
  Object.keys(answers[0].shards).forEach((shard, index) => {
    document.documentElement.style.setProperty(`--${shard}`, COLOURS[index % COLOURS.length]);
    const parts = answers.map((answer) => answer.shards[shard]);
    const sum = (key) => parts.reduce((total, part) => total + (part[key] ?? 0), 0);
    const total = sum("published") + sum("received");
    const seen = history.get(shard) ?? { total, rates: [] };
    seen.rates.push((total - seen.total) / seconds);
    seen.rates.splice(0, seen.rates.length - 60);
    seen.total = total;
    history.set(shard, seen);
    showShard(shard, parts, sum, seen.rates);
  });
}

function showShard(shard, parts, sum, rates) {
  const card = cardOf(shard);
  const up = parts[0].pid !== null && parts.every((part) => part.connected);
  const state = card.querySelector(".state");
  state.dataset.state = up ? "up" : "down";
  state.textContent = !up ? "down" : parts[0].port ? `up, port ${parts[0].port}` : "up";
  const kill = card.querySelector("button");
  kill.disabled = parts[0].pid === null;
  kill.hidden = parts[0].pid === undefined; // not ours to kill

  for (const key of COUNTERS) {
    card.querySelector(`[data-figure="${key}"]`).textContent = sum(key).toLocaleString("en");
  }
  const rate = Math.max(0, Math.round(rates.at(-1)));
  card.querySelector('[data-figure="rate"]').textContent = `${rate.toLocaleString("en")}/s`;
  const highest = Math.max(10, ...rates);
  const points = rates.map((value, x) => `${x + 60 - rates.length},${40 - (value / highest) * 38}`);
  card.querySelector("polyline").setAttribute("points", points.join(" "));
  const here = [...rooms].filter(([, entry]) => entry.shard === shard).map(([room]) => room);
  card.querySelector(".here").textContent = here.length ? `my rooms: ${here.join(", ")}` : "";
}

function cardOf(shard) {
  const known = element(`card-${shard}`);
  if (known) return known;
  const card = make("article", "shard");
  card.id = `card-${shard}`;
  card.style.setProperty("--shard", colourOf(shard));
  const head = make("header");
  const kill = make("button", "", "kill -9");
  kill.onclick = () =>
    fetch(`/shards/${shard}/kill`, { method: "POST", headers: { "X-Chat-Demo": "1" } });
  head.append(make("strong", "", shard), make("span", "state", ""), kill);
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", "0 0 59 41");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  const figures = make("dl");
  for (const key of ["rate", ...COUNTERS]) {
    const pair = make("div");
    const value = make("dd", "", "0");
    value.dataset.figure = key;
    pair.append(make("dt", "", key), value);
    figures.append(pair);
  }
  card.append(head, picture, figures, make("div", "here"));
  element("shards").append(card);
  return card;
}

function showLost(answers) {
  const reasons = new Map([
    ["my words not sent", mine.refused],
    ["my words perhaps not sent", mine.unknown],
    ["words that I missed", mine.missed],
  ]);
  for (const answer of answers) {
    for (const [reason, count] of Object.entries(answer.lost)) {
      const title = `layer: ${reason.replaceAll("_", " ")}`;
      reasons.set(title, (reasons.get(title) ?? 0) + count);
    }
  }
  const rows = [...reasons].map(([reason, count]) => {
    const row = make("tr", count ? "some" : "");
    row.append(make("td", "", reason), make("td", "", count.toLocaleString("en")));
    return row;
  });
  element("lost").tBodies[0].replaceChildren(...rows);
}

// ---- the person -------------------------------------------------------------------------------

element("name").value = `guest-${Math.floor(Math.random() * 9000 + 1000)}`;
element("join").onsubmit = (event) => {
  event.preventDefault();
  join(element("room").value);
  element("room").value = "";
};
element("say").onsubmit = (event) => {
  event.preventDefault();
  if (current === null) return;
  say(current, element("text").value);
  element("text").value = "";
};
setInterval(() => {
  if (!element("chatter").checked) return;
  for (const [room, entry] of rooms) {
    if (entry.shard && entry.outbox.length === 0) say(room, `chatter ${entry.number + 1}`);
  }
}, CHATTER_EVERY_MS);

connect();
showFigures();
