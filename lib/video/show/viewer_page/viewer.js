"use strict";

// World axes: x right, y forward, z up, the floor at z = 0, metres. Frames are numbers of the video's frames from 0.

const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

// ---------------------------------------------------------------- what the page holds

// The bytes of the blocks of one name, in pieces; the text is dropped to free memory.
function takePieces(name) {
  return [...document.querySelectorAll(`[data-block="${name}"]`)].map((block) => {
    const text = atob(block.textContent);
    block.remove();
    const piece = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) piece[i] = text.charCodeAt(i);
    return piece;
  });
}

function takeArray(name, Type) {
  const pieces = takePieces(name);
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return new Type(bytes.buffer);
}

const header = JSON.parse(byId("header").textContent);
const times = takeArray("times", Float64Array);
const lastFrame = times.length - 1;
const people = header.people.map((about, index) => ({
  ...about,
  index,
  middle: about.low.map((low, axis) => (low + about.high[axis]) / 2),
  frames: takeArray(`frames${index}`, Uint32Array),
  bridged: takeArray(`bridged${index}`, Uint8Array),
  world: takeArray(`world${index}`, Int16Array),
  keypoints: takeArray(`keypoints${index}`, Int16Array),
  confidence: takeArray(`confidence${index}`, Uint8Array),
  shown: true,
}));
const JOINTS = 17;

// Index of the last entry of an ascending array that is not above `value`; -1 if all are.
function lastNotAbove(array, value) {
  let low = 0;
  let high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// The row of a person's arrays for a frame; -1 if the person is not in it.
function rowAt(person, frame) {
  const row = lastNotAbove(person.frames, frame);
  return row >= 0 && person.frames[row] === frame ? row : -1;
}

function jointAt(person, row, joint) {
  const start = (row * JOINTS + joint) * 3;
  return person.middle.map((middle, axis) => middle + person.step * person.world[start + axis]);
}

// ---------------------------------------------------------------- colours

let colours;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["panel", "text", "floor", "grid", "shadow", "left", "right"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  colours.tones = style.getPropertyValue("--tones").split(",").map((tone) => tone.trim());
}

function mix(a, b, share) {
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(channel(a, i) * (1 - share) + channel(b, i) * share))})`;
}

const toneOf = (person) => colours.tones[person.index % colours.tones.length];

// Spine and head have the person's own hue; sides keep theirs for everyone and differ in lightness.
function limbColour(person, side) {
  if (side === "middle") return toneOf(person);
  return mix(colours[side], person.index % 3 === 1 ? colours.panel : colours.text, [0, 0.3, 0.35][person.index % 3]);
}

// ---------------------------------------------------------------- the 3D camera

const HALF_VIEW = Math.tan((18 * Math.PI) / 180); // of the angle seen over the height
const NEAREST = 0.1; // m before the camera
const view = { yaw: 0, pitch: 0, zoom: 1, target: [0, 0, 1], distance: 6 }; // what is drawn
const wanted = { target: [0, 0, 1], distance: 6 }; // what it glides to; the distance is for zoom 1
const startYaw = Math.atan2(header.forward[0], header.forward[1]); // as the video's camera looks
const START_PITCH = 0.22;
const FARTHEST = 16; // m: a scene that is only seen whole from farther away starts with a person followed
let focused = null; // the person that it follows, or null for the whole scene

function axes(yaw, pitch) {
  const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
  return { right: [cy, -sy, 0], up: [sy * sp, cy * sp, cp], forward: [sy * cp, cy * cp, -sp] };
}

// The nearest eye, looking along the given axes, that sees all points: each border of the view limits how near it is.
function frameAll(points, yaw, pitch, aspect) {
  const { right, up, forward } = axes(yaw, pitch);
  const margin = 0.86;
  const across = HALF_VIEW * aspect * margin;
  const along = HALF_VIEW * margin;
  const most = (value) => points.reduce((best, point) => Math.max(best, value(point)), -Infinity);
  const depthOf = (point) => dot(point, forward);
  const [east, west] = [1, -1].map((sign) => most((p) => sign * dot(p, right) - across * depthOf(p)));
  const [north, south] = [1, -1].map((sign) => most((p) => sign * dot(p, up) - along * depthOf(p)));
  const eyeDepth = Math.min(-(east + west) / (2 * across), -(north + south) / (2 * along));
  const depth = (most(depthOf) - most((p) => -depthOf(p))) / 2;
  const [x, y] = [(east - west) / 2, (north - south) / 2];
  return {
    target: [0, 1, 2].map((i) => x * right[i] + y * up[i] + depth * forward[i]),
    distance: Math.max(depth - eyeDepth, 1),
  };
}

// Joints of some 400 moments of the people shown, and the floor below their roots.
function scenePoints() {
  const points = [];
  const chosen = people.filter((person) => person.shown);
  const stride = Math.ceil(chosen.reduce((sum, person) => sum + person.frames.length, 0) / 400);
  for (const person of chosen) {
    for (let row = 0; row < person.frames.length; row += stride) {
      for (let joint = 0; joint < JOINTS; joint++) points.push(jointAt(person, row, joint));
      const [x, y] = jointAt(person, row, 0);
      points.push([x, y, 0]);
    }
  }
  return points;
}

const aspect = () => clamp(viewCanvas.clientWidth / Math.max(viewCanvas.clientHeight, 1), 0.2, 5);

function aimAtScene() {
  const points = scenePoints();
  if (points.length) Object.assign(wanted, frameAll(points, startYaw, START_PITCH, aspect()));
}

// The person who is there longest, or null where the whole scene is small enough.
function firstFocus() {
  aimAtScene();
  if (wanted.distance <= FARTHEST) return null;
  return people.reduce((best, person) => (person.frames.length > best.frames.length ? person : best));
}

// Keeps the person in the middle at the size of a standing body; while away, the place where they left or will come.
function aimAtPerson() {
  wanted.target = jointAt(focused, Math.max(lastNotAbove(focused.frames, frame), 0), 0);
  wanted.distance = 1.3 / HALF_VIEW / Math.min(aspect() * 1.2, 1);
}

function focusOn(person) {
  focused = person;
  view.zoom = 1;
  if (person) aimAtPerson();
  else aimAtScene();
  refreshList();
  requestDraw();
}

function resetView() {
  Object.assign(view, { yaw: startYaw, pitch: START_PITCH });
  focusOn(firstFocus());
}

// Lowest and highest coordinate of all people along a world axis.
function span(axis) {
  return [Math.min(...people.map((p) => p.low[axis])), Math.max(...people.map((p) => p.high[axis]))];
}

// Moves what is drawn towards what is wanted; returns whether it is still on its way.
function glide(seconds) {
  const share = 1 - Math.exp(-seconds / 0.12);
  const distance = wanted.distance * view.zoom;
  const gaps = [...wanted.target.map((want, axis) => want - view.target[axis]), distance - view.distance];
  const arrived = Math.max(...gaps.map(Math.abs)) < 0.002;
  view.target = view.target.map((have, axis) => have + gaps[axis] * (arrived ? 1 : share));
  view.distance += gaps[3] * (arrived ? 1 : share);
  return !arrived;
}

function jump() {
  view.target = [...wanted.target];
  view.distance = wanted.distance * view.zoom;
}

// ---------------------------------------------------------------- drawing in 3D

const viewCanvas = byId("view");
const LIMB_WIDTH = 0.05; // m
const HEAD = 0.1; // m, radius
const FAINT = 0.3;

// A canvas cleared and scaled so that one unit is one CSS pixel; null while it has no size.
function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return null;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.lineCap = "round";
  pen.lineJoin = "round";
  return { pen, width, height };
}

function makeLens(width, height) {
  const { right, up, forward } = axes(view.yaw, view.pitch);
  const eye = view.target.map((t, axis) => t - view.distance * forward[axis]);
  const focal = height / 2 / HALF_VIEW;
  const toCamera = (point) => {
    const offset = point.map((x, axis) => x - eye[axis]);
    return [dot(offset, right), dot(offset, up), dot(offset, forward)];
  };
  const toPicture = ([x, y, depth]) => [width / 2 + (focal * x) / depth, height / 2 - (focal * y) / depth];
  return { focal, toCamera, toPicture };
}

// The part of a closed polygon (camera axes) that lies before the camera.
function clipNear(polygon) {
  const kept = [];
  polygon.forEach((b, i) => {
    const a = polygon[(i + polygon.length - 1) % polygon.length];
    if (a[2] >= NEAREST !== b[2] >= NEAREST) {
      const share = (NEAREST - a[2]) / (b[2] - a[2]);
      kept.push(a.map((x, axis) => x + share * (b[axis] - x)));
    }
    if (b[2] >= NEAREST) kept.push(b);
  });
  return kept;
}

function trace(pen, lens, points) {
  const polygon = clipNear(points.map(lens.toCamera)).map(lens.toPicture);
  pen.beginPath();
  polygon.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
}

// Where people walk and a metre more, in whole cells, at most 60 cells across.
function makeFloor() {
  const [spanX, spanY] = [span(0), span(1)];
  const longest = Math.max(spanX[1] - spanX[0], spanY[1] - spanY[0]) + 2;
  const cell = [1, 2, 5, 10, 20, 50, 100].find((size) => longest / size <= 60) || longest / 60;
  const snap = ([low, high]) => [Math.floor((low - 1) / cell) * cell, Math.ceil((high + 1) / cell) * cell];
  return { x: snap(spanX), y: snap(spanY), cell };
}

const floor = people.length ? makeFloor() : null;

function drawFloor(pen, lens) {
  const [[x0, x1], [y0, y1], cell] = [floor.x, floor.y, floor.cell];
  trace(pen, lens, [[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]]);
  pen.fillStyle = colours.floor;
  pen.fill();
  pen.strokeStyle = colours.grid;
  const line = (from, to, coordinate) => {
    pen.lineWidth = Math.round(coordinate / cell) % 5 ? 1 : 2;
    trace(pen, lens, [from, to]);
    pen.stroke();
  };
  for (let x = x0; x <= x1 + cell / 2; x += cell) line([x, y0, 0], [x, y1, 0], x);
  for (let y = y0; y <= y1 + cell / 2; y += cell) line([x0, y, 0], [x1, y, 0], y);
}

function stroke(pen, from, to, width, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
}

// All limbs in one stroke, so that it is no darker where they cross.
function drawShadow(pen, points, width) {
  pen.strokeStyle = colours.shadow;
  pen.lineWidth = width;
  pen.beginPath();
  for (const [a, b] of header.limbs) {
    pen.moveTo(...points[a]);
    pen.lineTo(...points[b]);
  }
  pen.stroke();
}

function disc(pen, centre, radius, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(...centre, radius, 0, 2 * Math.PI);
  pen.fill();
}

// A pill with the person's id, its lower edge at the point.
function label(pen, [x, y], person) {
  const text = String(person.id);
  pen.font = "650 12px system-ui, sans-serif";
  const width = Math.max(pen.measureText(text).width + 12, 20);
  pen.fillStyle = toneOf(person);
  pen.beginPath();
  pen.roundRect(x - width / 2, y - 20, width, 20, 10);
  pen.fill();
  pen.fillStyle = colours.panel;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(text, x, y - 9.5);
}

// The people of the current frame that are shown, with their row.
function present() {
  const rows = people.filter((p) => p.shown).map((person) => ({ person, row: rowAt(person, frame) }));
  return rows.filter(({ row }) => row >= 0);
}

// Floor, shadows, then everybody's limbs and heads from far to near, each with a rim that parts it from those behind.
function drawSpace() {
  const sheet = prepare(viewCanvas);
  if (!sheet) return;
  const { pen, width, height } = sheet;
  const lens = makeLens(width, height);
  if (floor) drawFloor(pen, lens);
  const shapes = [];
  const labels = [];
  for (const { person, row } of present()) {
    const points = Array.from({ length: JOINTS }, (_, joint) => jointAt(person, row, joint));
    const seen = points.map(lens.toCamera);
    const below = points.map(([x, y]) => lens.toCamera([x, y, 0]));
    const alpha = person.bridged[row] ? FAINT : 1;
    if (Math.min(...seen.map((p) => p[2]), ...below.map((p) => p[2])) < NEAREST) continue;
    const size = (metres, depth) => Math.max((metres * lens.focal) / depth, 1.5);
    pen.globalAlpha = alpha;
    drawShadow(pen, below.map(lens.toPicture), size(1.4 * LIMB_WIDTH, below[0][2]));
    for (const [a, b, side] of header.limbs) {
      const depth = (seen[a][2] + seen[b][2]) / 2;
      const ends = [lens.toPicture(seen[a]), lens.toPicture(seen[b])];
      const broad = size(LIMB_WIDTH, depth);
      shapes.push({ depth, alpha, draw: () => {
        stroke(pen, ...ends, broad + 2.5, colours.panel);
        stroke(pen, ...ends, broad, limbColour(person, side));
      } });
    }
    const [nose, top] = header.head.map((joint) => seen[joint]);
    const head = nose.map((x, axis) => (x + top[axis]) / 2);
    const radius = size(HEAD, head[2]);
    shapes.push({ depth: head[2] - HEAD, alpha, draw: () => {
      disc(pen, lens.toPicture(head), radius + 1.25, colours.panel);
      disc(pen, lens.toPicture(head), radius, toneOf(person));
    } });
    const highest = seen.map(lens.toPicture).reduce((best, p) => (p[1] < best[1] ? p : best));
    labels.push({ depth: head[2], alpha, draw: () => {
      label(pen, [lens.toPicture(head)[0], Math.min(highest[1], lens.toPicture(head)[1] - radius) - 8], person);
    } });
  }
  const farFirst = (a, b) => b.depth - a.depth;
  for (const { alpha, draw } of [...shapes.sort(farFirst), ...labels.sort(farFirst)]) {
    pen.globalAlpha = alpha;
    draw();
  }
}

// ---------------------------------------------------------------- drawing on the video

const overlay = byId("overlay");

function drawOverlay() {
  const sheet = prepare(overlay);
  if (!sheet || !byId("show-overlay").checked) return;
  const { pen, width, height } = sheet;
  const scale = Math.min(width / header.width, height / header.height);
  const [left, top] = [(width - scale * header.width) / 2, (height - scale * header.height) / 2];
  for (const { person, row } of present()) {
    const first = row * JOINTS;
    const points = Array.from({ length: JOINTS }, (_, joint) =>
      [left, top].map((start, axis) =>
        start + scale * header.keypointStep * person.keypoints[2 * (first + joint) + axis]));
    for (const [a, b, side] of header.limbs) {
      const sure = Math.min(person.confidence[first + a], person.confidence[first + b]) / 255;
      pen.globalAlpha = person.bridged[row] ? FAINT : clamp(0.25 + sure, 0.25, 1);
      stroke(pen, points[a], points[b], 4, "#ffffffb0");
      stroke(pen, points[a], points[b], 2, limbColour(person, side));
    }
    pen.globalAlpha = person.bridged[row] ? FAINT : 1;
    const highest = points.reduce((best, point) => (point[1] < best[1] ? point : best));
    label(pen, [highest[0], Math.max(highest[1] - 6, 20)], person);
  }
}

// ---------------------------------------------------------------- playback

const film = byId("video");
let video = null; // the film once there is one; it is the clock, else the page's own is
let frame = 0;
let playing = false;
let clock = 0; // s of the video, while playing
let target = null; // s, where the film goes once the seek under way has ended
let following; // the pending call of followVideo
const speed = () => Number(byId("speed").value);
const settled = () => target === null && !film.seeking; // else its events and images are of where it was
const frameAt = (seconds) => clamp(lastNotAbove(times, seconds + 0.25 / header.fps), 0, lastFrame);

function startVideo() {
  const pieces = takePieces("preview");
  if (!pieces.length && !header.preview) return;
  video = film;
  film.addEventListener("ended", () => {
    if (!playing || !settled()) return;
    showFrame(lastFrame);
    setPlaying(false);
  });
  film.addEventListener("seeked", () => {
    if (target !== null) goToTarget();
    else if (playing) playVideo();
  });
  film.addEventListener("error", () => {
    video = null; // not playable here: the page goes on without it
    setPlaying(false);
    byId("summary").textContent += " · this browser cannot play the video";
  });
  film.src = header.preview || URL.createObjectURL(new Blob(pieces, { type: "video/mp4" }));
}

// Moves the video to the current frame, a little after its start so that rounding does not show the one before.
function seekVideo() {
  target = times[frame] + 0.25 / header.fps;
  if (!film.seeking) goToTarget();
}

function goToTarget() {
  film.currentTime = target;
  target = null;
}

function playVideo() {
  film.playbackRate = speed();
  film.play().catch(() => {
    if (settled() && film.paused) setPlaying(false); // not playable; else a pause that is over interrupted it
  });
  if (!film.requestVideoFrameCallback) return;
  film.cancelVideoFrameCallback(following);
  following = film.requestVideoFrameCallback(followVideo);
}

function showFrame(number) {
  frame = number;
  if (focused) aimAtPerson();
  requestDraw();
}

function seek(number) {
  showFrame(clamp(number, 0, lastFrame));
  clock = times[frame];
  if (video) seekVideo();
}

function setPlaying(on) {
  playing = on && lastFrame > 0;
  byId("play").classList.toggle("playing", playing);
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  requestDraw();
}

function togglePlay() {
  if (playing) {
    setPlaying(false);
    if (!video) return;
    video.pause();
    seekVideo();
    return;
  }
  if (frame === lastFrame) seek(0);
  clock = times[frame];
  setPlaying(true);
  if (video && settled()) playVideo(); // else when its seek has ended
}

// Called by the browser with the time of the image that it has just shown.
function followVideo(_, shown) {
  if (!playing || !video) return;
  if (settled()) showFrame(frameAt(shown.mediaTime));
  following = video.requestVideoFrameCallback(followVideo);
}

// One step of playback for browsers that do not say which image they show, or without a video.
function advance(seconds) {
  if (video && (video.requestVideoFrameCallback || !settled())) return;
  clock = video ? video.currentTime : clock + seconds * speed();
  const number = frameAt(clock);
  if (number !== frame) showFrame(number);
  if (!video && frame === lastFrame) setPlaying(false);
}

// ---------------------------------------------------------------- the loop

let drawing = false; // a step is due
let lastStep = 0;

function requestDraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(step);
}

// Draws; goes on while something moves. A pause between steps counts as none.
function step(now) {
  const seconds = clamp((now - lastStep) / 1e3, 0, 0.1);
  lastStep = now;
  drawing = false;
  if (playing) advance(seconds);
  const moving = glide(seconds);
  drawSpace();
  drawOverlay();
  refreshControls();
  if (playing || moving) requestDraw();
}

// ---------------------------------------------------------------- controls

const slider = byId("slider");
const seconds = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(2).padStart(5, "0")}`;

function refreshControls() {
  const text = `frame ${frame} / ${lastFrame}, ${seconds(times[frame])}`;
  if (byId("position").textContent === text) return;
  byId("position").textContent = text;
  slider.value = frame;
  slider.setAttribute("aria-valuetext", text);
  for (const person of people) person.item.classList.toggle("away", rowAt(person, frame) < 0);
}

function refreshList() {
  for (const person of people) {
    person.item.classList.toggle("focused", person === focused);
    person.item.classList.toggle("unseen", !person.shown);
    person.item.querySelector("button").setAttribute("aria-pressed", person === focused);
  }
  byId("everyone").setAttribute("aria-pressed", focused === null);
}

function element(tag, className, properties = {}) {
  return Object.assign(document.createElement(tag), { className }, properties);
}

function addPerson(person) {
  const item = element("li", "");
  const show = element("label", "show", { title: "Show or hide" });
  const box = element("input", "", { type: "checkbox", checked: true, ariaLabel: `Show person ${person.id}` });
  box.addEventListener("change", () => {
    person.shown = box.checked;
    if (!focused) aimAtScene();
    refreshList();
    requestDraw();
  });
  show.append(box);
  const button = element("button", "", { type: "button", title: "Follow with the camera" });
  button.ariaLabel = `Focus camera on person ${person.id}`;
  button.addEventListener("click", () => focusOn(person === focused ? null : person));
  const name = element("span", "name", { textContent: `Person ${person.id}` });
  const frames = person.frames;
  name.append(element("small", "", { textContent: `frames ${frames[0]}–${frames[frames.length - 1]}` }));
  person.tone = element("span", "tone", { textContent: person.id });
  person.presence = element("canvas", "presence", { width: 600, height: 1, ariaHidden: "true" });
  button.append(person.tone, name, person.presence);
  item.append(show, button);
  person.item = item;
  byId("list").append(item);
}

// Tones of the list, and along each row a strip of the video with the frames that the person is in.
function paintList() {
  for (const person of people) {
    person.tone.style.background = toneOf(person);
    const { width } = person.presence;
    const pen = person.presence.getContext("2d");
    pen.clearRect(0, 0, width, 1);
    pen.fillStyle = toneOf(person);
    for (let x = 0; x < width; x++) {
      const row = lastNotAbove(person.frames, ((x + 1) / width) * times.length - 1e-6);
      if (row < 0 || person.frames[row] < Math.floor((x / width) * times.length)) continue;
      pen.globalAlpha = person.bridged[row] ? FAINT : 1;
      pen.fillRect(x, 0, 1, 1);
    }
  }
}

function repaint() {
  readColours();
  paintList();
  requestDraw();
}

function connectControls() {
  slider.max = lastFrame;
  slider.addEventListener("input", () => seek(Number(slider.value)));
  for (const id of ["play", "previous", "next", "slider"]) byId(id).disabled = lastFrame === 0;
  byId("play").addEventListener("click", togglePlay);
  byId("previous").addEventListener("click", () => seek(frame - 1));
  byId("next").addEventListener("click", () => seek(frame + 1));
  byId("speed").addEventListener("change", () => {
    if (video) video.playbackRate = speed();
  });
  byId("show-overlay").addEventListener("change", requestDraw);
  byId("everyone").addEventListener("click", () => focusOn(null));
  byId("reset").addEventListener("click", resetView);
  document.addEventListener("click", (event) => {
    // A control that was clicked by mouse would take the space key, which is for play and pause.
    if (event.detail && event.target.closest("button, input")) document.activeElement.blur();
  });
  document.addEventListener("keydown", onKey);
}

// Keys that the focused control uses itself are left to it.
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const inControl = event.target.matches("input, button");
  const many = Math.max(Math.round(header.fps), 1);
  if (event.key === " " && (!inControl || event.target === slider)) togglePlay();
  else if (event.key === "ArrowLeft") seek(frame - (event.shiftKey ? many : 1));
  else if (event.key === "ArrowRight") seek(frame + (event.shiftKey ? many : 1));
  else if (event.key === "Home") seek(0);
  else if (event.key === "End") seek(lastFrame);
  else return;
  event.preventDefault();
}

// One finger or the mouse turns, two fingers or the wheel zoom, a double click or double tap resets.
function connectView() {
  const held = new Map(); // pointer id -> last place
  const apart = () => {
    const [a, b] = [...held.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  const zoom = (factor) => {
    view.zoom = clamp(view.zoom * factor, 0.1, 8);
    requestDraw();
  };
  viewCanvas.addEventListener("pointerdown", (event) => {
    viewCanvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, [event.clientX, event.clientY]);
  });
  viewCanvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const before = held.get(event.pointerId);
    const distance = held.size === 2 && apart();
    held.set(event.pointerId, [event.clientX, event.clientY]);
    if (held.size === 2) zoom(distance / Math.max(apart(), 1));
    if (held.size !== 1) return;
    view.yaw += (event.clientX - before[0]) * 0.008;
    view.pitch = clamp(view.pitch + (event.clientY - before[1]) * 0.008, 0, 1.5);
    requestDraw();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    viewCanvas.addEventListener(name, (event) => held.delete(event.pointerId));
  }
  viewCanvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(clamp(event.deltaY * (event.deltaMode ? 30 : 1), -200, 200) * 0.0015));
  }, { passive: false });
  viewCanvas.addEventListener("dblclick", resetView);
}

function fillTexts() {
  const count = `${people.length} ${people.length === 1 ? "person" : "people"}`;
  byId("summary").textContent =
    `${header.width} × ${header.height} · ${times.length} frames · ${seconds(times[lastFrame])} · ${count}`;
  byId("bridged-note").hidden = !people.some((person) => person.bridged.includes(1));
  byId("message").hidden = people.length > 0;
  document.body.classList.toggle("empty", people.length === 0);
  if (floor) byId("grid-note").textContent = `grid ${Math.round(floor.cell)} m`;
}

document.documentElement.style.setProperty("--aspect", header.width / header.height);
fillTexts();
people.forEach(addPerson);
connectControls();
connectView();
repaint();
startVideo();
resetView();
jump();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
const sizes = new ResizeObserver(() => {
  if (!focused) aimAtScene();
  jump();
  requestDraw();
});
for (const canvas of [viewCanvas, overlay]) sizes.observe(canvas);
